"""Where training ends, by how the trainer codes its KL term: groups of 8, against β and against p_ref."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from grpo_dynamics import FiniteGroup, fixed_points, grpo, logit, sigmoid
from grpo_dynamics.atlas_plots import UNSTABLE
from grpo_dynamics.plotting import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    VERMILION,
    new_figure,
    probability_axis,
    probability_ticks,
    styled,
)
from grpo_dynamics.theory.flow import KL, Flow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GROUP_SIZE = 8
P_REF, BETA = 0.1, 1.0
KINDS: tuple[KL, ...] = ("exact", "k3", "none")
EPS = 1e-5
DEEPSEEKMATH = 0.04
LOWEST, HIGHEST = float(logit(1e-3)), float(logit(1 - 1e-5))
STRIP = HIGHEST + 1.6
"""The strip between these two stands for all p that are closer to 1."""
HEIGHTS = {"exact": 0.3, "k3": 0.5, "none": 0.82, "exact minimisation": 0.56}

COLORS = {"exact": BLUE, "k3": VERMILION, "none": BLACK, "exact minimisation": GREEN}
NAMES = {
    "none": "k1 in the loss, or no KL term: $p\\to1$ for every $\\beta$",
    "exact": "exact KL; also k2 in the loss, k1 in the reward, k1 or k3 × ratio",
    "k3": "k3 in the loss, many trainers' default",
    "exact minimisation": "the paper's iteration: exact KL, exact minimisation, $G=\\infty$",
}


def data() -> pl.DataFrame:
    """Columns against, kl, branch, beta, p_ref, log_odds, p, stable; no row where there is no fixed point.

    ``against`` is "beta" (p_ref = 0.1) or "p_ref" (β = 1). kl is "exact", "k3" or "none" for the flow of a trainer
    with groups of 8, and "exact minimisation" for the recursion with exact statistics. A trainer without a pull goes
    to p = 1: its log-odds are infinite.
    """
    beta, reference = np.geomspace(1e-3, 10, 401), np.linspace(logit(1e-3), logit(0.9), 401)
    sweeps: dict[str, tuple[Any, Any]] = {"beta": (beta, P_REF), "p_ref": (BETA, sigmoid(reference))}
    tables: list[pl.DataFrame] = []
    for against, (strength, start) in sweeps.items():
        dynamics = {kl: Flow(strength, start, FiniteGroup(GROUP_SIZE), kl) for kl in KINDS}
        for kl, system in {**dynamics, "exact minimisation": grpo(strength, start, EPS)}.items():
            found = fixed_points(system)
            for branch in range(3):
                log_odds = np.full(beta.shape, np.inf) if kl == "none" and branch == 0 else found.log_odds[branch]
                columns = {
                    "beta": np.broadcast_to(strength, beta.shape),
                    "p_ref": np.broadcast_to(start, beta.shape),
                    "log_odds": log_odds,
                    "p": sigmoid(log_odds),
                    "stable": np.full(beta.shape, True) if kl == "none" else found.stable[branch],
                }
                table = pl.DataFrame(columns).filter(pl.col("log_odds").is_not_nan())
                names = {"against": against, "kl": kl, "branch": branch}
                tables.append(table.select(*(pl.lit(value).alias(name) for name, value in names.items()), pl.all()))
    return pl.concat(tables)


def _draw_branches(axes: Axes, table: pl.DataFrame, x: Any) -> None:
    """Draw every branch; what is closer to 1 than the axis shows runs in the strip above it, each at its own height."""
    axes.axhspan(HIGHEST, STRIP, color="#F0F0F0", lw=0, zorder=0)
    for line in table.partition_by("kl", "branch", "stable", maintain_order=True):
        kl, stable = line["kl"][0], line["stable"][0]
        height = np.minimum(line["log_odds"].to_numpy(), HIGHEST + (STRIP - HIGHEST) * HEIGHTS[kl])
        jumps = np.flatnonzero(np.abs(np.diff(height)) > 2) + 1  # where the lowest fixed point vanishes: no line across
        axes.plot(
            np.insert(x(line).astype(float), jumps, np.nan),
            np.insert(height, jumps, np.nan),
            color=COLORS[kl],
            lw=1.4 if kl == "exact minimisation" else 2.0,
            ls="-" if stable else UNSTABLE,
            zorder=3 if kl == "exact minimisation" else 4,
        )


def _probabilities(axes: Axes) -> None:
    ticks, labels = probability_ticks(LOWEST, HIGHEST)
    axes.set_ylim(LOWEST, STRIP)
    axes.set_yticks([*ticks[:-1], (HIGHEST + STRIP) / 2], [*labels[:-1], "closer to 1"])


@styled
def draw(table: pl.DataFrame) -> Figure:
    from matplotlib.lines import Line2D

    figure = new_figure(7.6, 4.2)
    left, right = figure.subplots(1, 2, sharey=True)
    _draw_branches(left, table.filter(against="beta"), lambda line: line["beta"].to_numpy())
    left.set(xscale="log", xlim=(1e-3, 10), xlabel=r"KL strength $\beta$")
    left.set_xticks([1e-3, 1e-2, 0.1, 1, 10], ["0.001", "0.01", "0.1", "1", "10"])
    left.minorticks_off()
    left.set_title(rf"against $\beta$, for a question with $p_{{\mathrm{{ref}}}}={P_REF}$")
    left.axhline(float(logit(P_REF)), color=GREY, lw=0.9, ls=":")
    left.text(1.2e-3, logit(P_REF) + 0.15, r"$p_{\mathrm{ref}}$", color=GREY)
    left.set_ylabel("success probability where training ends, $p^*$")
    left.plot([DEEPSEEKMATH] * 2, [LOWEST, STRIP], color=GREY, lw=0.9, ls=":", zorder=1)
    left.text(
        DEEPSEEKMATH * 1.1, logit(0.006), "DeepSeekMath's\n" + rf"$\beta={DEEPSEEKMATH}$", color=GREY, va="center"
    )
    stop = table.filter(pl.col("beta").is_close(DEEPSEEKMATH, rel_tol=0.02), against="beta", kl="k3")
    stop = stop.sort((pl.col("beta") - DEEPSEEKMATH).abs())[0]
    left.plot([DEEPSEEKMATH], stop["log_odds"], "o", ms=5.5, color=VERMILION, zorder=6)
    left.annotate(f"k3 stops\nat {stop['p'][0]:.3f}", (DEEPSEEKMATH, stop["log_odds"][0]),
                  xytext=(3e-3, logit(0.8)), color=VERMILION, va="center",
                  arrowprops={"arrowstyle": "->", "color": VERMILION, "lw": 0.8, "shrinkB": 4})  # fmt: skip

    _draw_branches(right, table.filter(against="p_ref"), lambda line: logit(line["p_ref"].to_numpy()))
    right.set_title(rf"against $p_{{\mathrm{{ref}}}}$, at $\beta={BETA:g}$")
    right.plot([LOWEST, HIGHEST], [LOWEST, HIGHEST], color=GREY, lw=0.9, ls=":")
    right.text(logit(0.56), logit(0.5), r"$p^*=p_{\mathrm{ref}}$", color=GREY, va="top")
    right.set_xlabel(r"success probability of the reference, $p_{\mathrm{ref}}$")
    _probabilities(left)
    right.tick_params(axis="y", labelleft=False)
    probability_axis(right, "x", LOWEST, float(logit(0.9)))
    handles = [Line2D([], [], color=COLORS[kl], lw=2, label=name) for kl, name in NAMES.items()]
    handles.append(Line2D([], [], color=GREEN, lw=1.4, ls=UNSTABLE, label="unstable: nothing settles there"))
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    figure.suptitle(f"The KL term as coded decides where training ends  (groups of {GROUP_SIZE})", fontsize=10)
    return figure
