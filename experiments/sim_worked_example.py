"""DeepSeekMath's worked example: a group of eight answers, from rewards to advantages to the clipped objective."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from grpo_dynamics.advantages import clipped, worked_example
from grpo_dynamics.plotting import BLUE, GREY, VERMILION, new_figure, styled
from grpo_dynamics.simulation.runs import Part, independent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "DeepSeekMath's worked example"
QUICK: dict[str, Any] = {}


@dataclasses.dataclass(frozen=True)
class Settings:
    """Eight rewards, the ratio of one token of the first answer, and the clip range."""

    rewards: tuple[float, ...] = (1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.0)
    ratio: float = 1.4
    clip_range: float = 0.2


def parts(settings: Settings, seed: int) -> list[Part]:
    return [independent("one group", lambda: rows(settings))]


def rows(settings: Settings) -> pl.DataFrame:
    """Columns kind, x, reward, advantage, objective, mean, std: the answers of the group, then the objective by ratio.

    Rows of kind "answer" have the number of the answer as x and its objective at ratio 1; "positive" and "negative"
    have the ratio as x and the objective of a right and of a wrong answer; "example" is the token of the example.
    """
    example = worked_example(settings.rewards, settings.ratio, settings.clip_range)
    high, low = float(example.advantages.max()), float(example.advantages.min())
    ratios = np.linspace(0.0, 2.0, 201)
    tables = [
        pl.DataFrame(
            {
                "x": np.arange(1.0, len(settings.rewards) + 1),
                "reward": settings.rewards,
                "advantage": example.advantages,
                "objective": example.advantages,
            }
        ).with_columns(kind=pl.lit("answer"))
    ]
    for kind, advantage in (("positive", high), ("negative", low)):
        objective = clipped(ratios, advantage, settings.clip_range, settings.clip_range)
        columns = {"x": ratios, "advantage": np.full(ratios.shape, advantage), "objective": objective}
        tables.append(pl.DataFrame(columns).with_columns(kind=pl.lit(kind)))
    point = {"x": settings.ratio, "reward": settings.rewards[0], "advantage": example.advantages[0]}
    tables.append(pl.DataFrame({**point, "objective": example.objective, "kind": "example"}))
    joined = pl.concat(tables, how="diagonal").with_columns(mean=pl.lit(example.mean), std=pl.lit(example.std))
    return joined.select("kind", "x", "reward", "advantage", "objective", "mean", "std")


def summary(table: pl.DataFrame) -> pl.DataFrame:
    """Return the numbers of the example: mean, std, advantages of a right and a wrong answer, the token's objective."""
    answers, token = table.filter(kind="answer"), table.filter(kind="example")
    return pl.DataFrame(
        {
            "mean": token["mean"],
            "std": token["std"],
            "advantage_right": [answers["advantage"].max()],
            "advantage_wrong": [answers["advantage"].min()],
            "ratio": token["x"],
            "objective": token["objective"],
            "objective_without_clip": token["x"] * token["advantage"],
        }
    )


@styled
def draw(table: pl.DataFrame) -> Figure:
    figure = new_figure(7.2, 3.0)
    left, right = figure.subplots(1, 2)
    answers, token = table.filter(kind="answer"), table.filter(kind="example")
    colors = [BLUE if reward > 0 else VERMILION for reward in answers["reward"]]
    left.bar(answers["x"], answers["advantage"], color=colors, width=0.7)
    for x, reward, advantage in answers.select("x", "reward", "advantage").iter_rows():
        left.text(
            x,
            advantage + np.copysign(0.05, advantage),
            f"r = {reward:g}",
            ha="center",
            va="bottom" if advantage > 0 else "top",
            fontsize=7.5,
        )
    left.axhline(0, color=GREY, lw=0.8)
    left.set(xlabel="answer of the group", ylabel="advantage", ylim=(-1.3, 1.3), xticks=answers["x"].to_list())
    left.set_title(f"(r − mean)/std,  mean {token['mean'][0]:.2f}, std {token['std'][0]:.2f} (divided by G−1)")
    left.grid(visible=False, axis="x")
    for kind, color, label in (("positive", BLUE, "right answer"), ("negative", VERMILION, "wrong answer")):
        line = table.filter(kind=kind)
        right.plot(line["x"], line["objective"], color=color, label=label)
        right.plot(line["x"], line["x"] * line["advantage"], color=color, lw=0.9, ls=":")
    x, y = token["x"][0], token["objective"][0]
    right.plot([x, x], [y, x * token["advantage"][0]], color=GREY, lw=0.8)
    right.plot([x], [y], "o", color=BLUE, ms=6)
    right.annotate(
        f"ratio {x:g} counts as {y / token['advantage'][0]:.1f}: {y:.2f}",
        (x, y),
        xytext=(0.78, 0.4),
        arrowprops={"arrowstyle": "-", "color": GREY, "lw": 0.8},
    )
    right.plot([], [], color=GREY, lw=0.9, ls=":", label="without clipping")
    right.set(xlabel=r"ratio $\rho=\pi/\pi_{\mathrm{old}}$ of a token", ylabel="its objective")
    right.set_title("The clipped objective of one token")
    right.legend(loc="lower left")
    return figure
