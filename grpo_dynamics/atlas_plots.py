"""Drawing for the atlas: one colour for each thing that can become of a question, and maps of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from scipy import ndimage

from grpo_dynamics.logodds import sigmoid
from grpo_dynamics.plotting import BLACK, BLUE, GREY, VERMILION, probability_axis, probability_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PLAIN, SOLVED, LOWER, OSCILLATION, CHAOS, UNDECIDED = "#F0F0F0", "#B5DECB", "#B9DCF2", "#F7D58B", "#DD7759", "#8A8A8A"
UNSTABLE = (0, (4, 2.5))
"""Dashes, as everywhere for what is unstable."""

FATES: dict[str, tuple[str, str, str]] = {
    "one": (PLAIN, "one stable state", "one stable state, the greener the closer $p^*$ is to 1"),
    "bistable": (LOWER, "two stable states", "two stable states or more: the start decides"),
    "oscillating": (OSCILLATION, "oscillates", "a cycle attracts: $p$ jumps for ever between the same values"),
    "chaotic": (CHAOS, "chaos", "chaos: $p$ never repeats"),
    "undecided": (UNDECIDED, "undecided", "undecided, next to a boundary"),
}
"""What can become of a question: colour, name in the picture, name in the legend."""

KEYS = {
    "ONE_STABLE": "one",
    "SATURATING": "one",
    "BISTABLE": "bistable",
    "OSCILLATING": "oscillating",
    "CHAOTIC": "chaotic",
    "DEGENERATE": "undecided",
}
"""Which of :data:`FATES` a regime is; SATURATING is one stable state at p = 1."""


def draw_plane(axes: Axes, table: pl.DataFrame, most: int = 9) -> np.ndarray[Any, Any]:
    """Draw a table of :func:`grpo_dynamics.atlas.plane`: β upwards, p_ref to the right.

    Args:
        axes: where.
        table: the table, in any order.
        most: about how many ticks the axis of p_ref has room for.

    Returns:
        The keys of :data:`FATES` that were drawn, shape (β, p_ref).
    """
    from matplotlib.colors import to_rgb

    cells = table.sort("beta", "log_odds_ref")
    beta, reference = (cells[name].unique().sort().to_numpy() for name in ("beta", "log_odds_ref"))
    shape = (len(beta), len(reference))
    keys = cells["regime"].replace_strict(KEYS).to_numpy().reshape(shape)
    colors = np.empty((*shape, 3))
    for key, (color, *_) in FATES.items():
        colors[keys == key] = to_rgb(color)
    single = keys == "one"
    share = sigmoid(cells["highest"].to_numpy().reshape(shape)[single])[:, None]
    colors[single] = (1 - share) * np.array(to_rgb(PLAIN)) + share * np.array(to_rgb(SOLVED))
    axes.pcolormesh(reference, beta, colors, rasterized=True)
    plane_axes(axes, beta, reference, most)
    return keys


def plane_axes(axes: Axes, beta: np.ndarray[Any, Any], reference: np.ndarray[Any, Any], most: int = 9) -> None:
    """Label the axes of a plane of β, upwards, and p_ref, both ascending."""
    axes.set(ylim=(beta[0], beta[-1]), yscale="log", ylabel=r"KL strength $\beta$")
    beta_ticks(axes, "y", beta[0], beta[-1])
    axes.grid(False)
    probability_axis(axes, "x", reference[0], reference[-1], most)
    axes.set_xlabel(r"success probability of the reference, $p_{\mathrm{ref}}$")


def beta_ticks(axes: Axes, which: str, low: float, high: float) -> None:
    """Write the powers of ten at the "x" or "y" axis as people write them, where there are two at least."""
    ticks = [t for t in (float(f"1e{k}") for k in range(-300, 300)) if low <= t <= high]
    if len(ticks) > 1:
        ticks = ticks[:: 1 + len(ticks) // 8]
        (axes.set_xticks if which == "x" else axes.set_yticks)(ticks, [f"{t:g}" for t in ticks])
        axes.minorticks_off()


def draw_boundaries(axes: Axes, table: pl.DataFrame, width: float = 1.5) -> None:
    """Draw a table of :func:`grpo_dynamics.atlas.boundaries`: folds solid, flips dashed, the cusp as a dot."""
    for part in table.filter(pl.col("kind") != "cusp").partition_by("kind", "branch", maintain_order=True):
        fold = part["kind"][0] == "fold"
        style: dict[str, Any] = {"color": BLUE, "ls": "-"} if fold else {"color": VERMILION, "ls": (0, (5, 1.5))}
        axes.plot(part["log_odds_ref"], part["beta"], lw=width, scalex=False, scaley=False, **style)
    cusp = table.filter(kind="cusp")
    axes.plot(cusp["log_odds_ref"], cusp["beta"], "o", ms=3 + width, color=BLUE, scalex=False, scaley=False)


def boundary_handles(table: pl.DataFrame) -> list[Any]:
    """Return legend entries for the lines that are there."""
    from matplotlib.lines import Line2D

    kinds = set(table["kind"].to_list())
    entries: dict[str, tuple[dict[str, Any], str]] = {
        "fold": ({"color": BLUE, "lw": 1.5}, "fold: two fixed points are born"),
        "cusp": ({"color": BLUE, "marker": "o", "ls": "", "ms": 4.5}, "cusp: the folds end"),
        "flip": ({"color": VERMILION, "lw": 1.5, "ls": (0, (5, 1.5))}, "flip: the lower point turns unstable"),
    }
    return [Line2D([], [], label=label, **style) for kind, (style, label) in entries.items() if kind in kinds]


def fate_handles(keys: np.ndarray[Any, Any], least: float = 0.0) -> list[Any]:
    """Return legend entries for the colours that cover more than a share of the cells."""
    from matplotlib.patches import Patch

    return [
        Patch(facecolor=SOLVED if key == "one" else color, edgecolor=GREY, lw=0.4, label=label)
        for key, (color, _, label) in FATES.items()
        if float(np.mean(keys == key)) > least
    ]


def name_regions(axes: Axes, keys: np.ndarray[Any, Any], inches: tuple[float, float], names: Mapping[str, str]) -> None:
    """Write the name of every region into it, where there is room for the text.

    Args:
        axes: with the plane drawn into it.
        keys: what :func:`draw_plane` returned.
        inches: width and height of the axes, about.
        names: text of each key; those left out stay without.
    """
    rows, columns = keys.shape
    y = np.geomspace(*axes.get_ylim(), rows)
    x = np.linspace(*axes.get_xlim(), columns)
    for key, text in names.items():
        regions, number = ndimage.label(keys == key)
        for region in range(1, number + 1):
            inside = regions == region
            for rotation in (0, 90):
                lines = text.split("\n")
                size = (0.078 * max(map(len, lines)) + 0.1, 0.15 * len(lines) + 0.1)
                width, height = size if rotation == 0 else size[::-1]
                box = (max(1, round(height / inches[1] * rows)), max(1, round(width / inches[0] * columns)))
                fits = ndimage.minimum_filter(inside.astype(np.int8), box, mode="constant") > 0
                if not fits.any():
                    continue
                step = (inches[1] / rows, inches[0] / columns)
                depth = ndimage.distance_transform_edt(np.pad(fits, 1), sampling=step)[1:-1, 1:-1]
                row, column = np.unravel_index(int(np.argmax(depth)), keys.shape)
                axes.text(x[column], y[row], text, ha="center", va="center", rotation=rotation)
                break


def draw_ends(axes: Axes, table: pl.DataFrame) -> Any:
    """Draw where the orbit from p_0 = p_ref ends, from a table of :func:`grpo_dynamics.atlas.plane`; return the mesh.

    Colour is the success probability at the end, hatched grey where there is none: the orbit oscillates or wanders.
    """
    cells = table.sort("beta", "log_odds_ref")
    beta, reference = (cells[name].unique().sort().to_numpy() for name in ("beta", "log_odds_ref"))
    shape = (len(beta), len(reference))
    settles = cells["end"].is_in(["FIXED_POINT", "ONE"]).to_numpy().reshape(shape)
    end = np.where(settles, sigmoid(cells["end_low"].to_numpy().reshape(shape)), np.nan)
    axes.set_facecolor("#A9A9A9")  # shows where there is no end
    mesh = axes.pcolormesh(reference, beta, end, cmap="viridis", vmin=0, vmax=1, rasterized=True)
    if not settles.all():
        axes.contourf(reference, beta, (~settles).astype(float), levels=[0.5, 1.5], colors="none", hatches=["//////"])
    plane_axes(axes, beta, reference)
    return mesh


def mark_point(axes: Axes, log_odds_ref: float | None, beta: float | None) -> None:
    """Mark the user's own β and p_ref: a ring, or a line where one of them is not given."""
    from matplotlib.patheffects import withStroke

    if log_odds_ref is not None and beta is not None:
        axes.plot([log_odds_ref], [beta], "o", ms=9, mfc="white", mec=BLACK, mew=1.8, zorder=7)
        axes.plot([log_odds_ref], [beta], "o", ms=3, color=BLACK, zorder=8)
        left = log_odds_ref > np.mean(axes.get_xlim())
        axes.annotate(
            "you are here",
            (log_odds_ref, beta),
            xytext=(-8 if left else 8, 7),
            textcoords="offset points",
            ha="right" if left else "left",
            weight="bold",
            zorder=8,
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )
    elif beta is not None:
        axes.axhline(beta, color=BLACK, lw=1.2, ls=":", zorder=7)
    elif log_odds_ref is not None:
        axes.axvline(log_odds_ref, color=BLACK, lw=1.2, ls=":", zorder=7)


class Strip:
    """A vertical axis of log-odds up to a probability near 1, and a strip above it for all that is nearer."""

    def __init__(self, axes: Axes, low: float, high: float, label: str) -> None:
        self.high, self.height = high, high + 0.07 * (high - low)
        self.level = (self.high + self.height) / 2
        axes.axhspan(self.high, self.height, color="#F0F0F0", lw=0, zorder=0)
        ticks, labels = probability_ticks(low, high, most=12)
        room = [tick for tick in ticks if tick < high - 0.04 * (high - low)]
        axes.set_ylim(low, self.height)
        axes.set_yticks([*room, self.level], [*labels[: len(room)], label])

    def place(self, log_odds: Any) -> Any:
        """Return where to draw log-odds: in the middle of the strip where they lie above the axis."""
        values = np.asarray(log_odds, dtype=float)
        return np.where(values > self.high, self.level, values)


def draw_line(top: Axes, bottom: Axes, table: pl.DataFrame, along: str, low: float, high: float) -> None:
    """Draw a table of :func:`grpo_dynamics.atlas.line`: what is visited above, the Lyapunov exponent below.

    Args:
        top: axes for what is visited.
        bottom: axes for the exponent; both share x.
        table: the table.
        along: the column for the horizontal axis.
        low: log-odds at which the vertical axis begins.
        high: log-odds at which it ends; a strip above stands for what is nearer to 1.
    """
    strip = Strip(top, low, high, r"$p\approx1$")
    visited = table.filter(kind="visited")
    top.plot(
        visited[along], strip.place(visited["log_odds"]), ".", ms=1.1, mew=0, color=BLUE, rasterized=True, zorder=2
    )
    one = visited.filter(pl.col("log_odds").is_infinite())[along].to_numpy()  # p = 1 attracts: not points, a line
    everywhere = table[along].unique().sort().to_numpy()
    top.plot(everywhere, np.where(np.isin(everywhere, one), strip.level, np.nan), color=BLUE, lw=1.6, zorder=2)
    branches = table.filter(kind="branch").sort("period", "slot", along)
    for part in branches.partition_by("period", "slot", maintain_order=True):
        single, stable = part["period"][0] == 1, part["stable"].to_numpy()
        at, height = part[along].to_numpy(), strip.place(part["log_odds"])
        # where a fixed point is born those above it change slots, and no line leads from one to the other
        jumps = np.append(False, np.abs(np.diff(height)) > 0.1 * (high - low))
        for solid in (True, False):
            shown = np.where((stable == solid) & ~jumps, height, np.nan)
            top.plot(
                at,
                shown,
                color=BLACK if single else VERMILION,
                lw=1.6 if single else 1.2,
                ls="-" if solid else UNSTABLE,
                zorder=3,
            )
    top.set_ylabel("success probability in the long run")

    rate = table.filter(kind="exponent").sort(along)
    floor = -1.5
    at, shown = rate[along].to_numpy(), np.maximum(rate["exponent"].to_numpy(), floor)
    bottom.fill_between(at, 0, shown, where=shown >= 0, color=CHAOS, lw=0, interpolate=True)
    bottom.fill_between(at, 0, shown, where=shown <= 0, color=LOWER, lw=0, interpolate=True)
    bottom.plot(at, shown, color=BLACK, lw=0.7)
    bottom.axhline(0, color=BLACK, lw=0.8)
    bottom.set(ylim=(floor, 0.75), ylabel="Lyapunov exponent")


def line_handles(table: pl.DataFrame) -> list[Any]:
    """Return the legend of :func:`draw_line`: what is in the table."""
    from matplotlib.lines import Line2D

    drawn = set(table.filter(kind="branch").select("period", "stable").iter_rows())
    styles: dict[int, tuple[str, dict[str, Any]]] = {
        1: ("fixed point", {"color": BLACK, "lw": 1.6}),
        2: ("2-cycle", {"color": VERMILION, "lw": 1.2}),
    }
    lines = [
        Line2D([], [], ls="-" if stable else UNSTABLE, label=f"{name}, {'stable' if stable else 'unstable'}", **style)
        for period, (name, style) in styles.items()
        for stable in (True, False)
        if (period, stable) in drawn
    ]
    dots = Line2D([], [], color=BLUE, marker=".", ls="", ms=4, label="visited in the long run, from $p_0=0.5$")
    return [*lines, dots]
