"""One style for every picture: colour-blind-safe, readable at paper size, and the same bytes on every run.

Stable is solid and filled, unstable is dashed and open, everywhere. Pictures are made with Matplotlib's object
interface: no window, no state of pyplot, and the user's own settings are as before when a function returns.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np

from grpo_dynamics.arrays import Array, batch_shape, to_numpy
from grpo_dynamics.logodds import logit, sigmoid
from grpo_dynamics.theory.fixed_points import FixedPoints, Status, fixed_points
from grpo_dynamics.theory.recursion import Recursion, Trajectory

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, VERMILION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
PURPLE, SKY, YELLOW, BLACK = "#CC79A7", "#56B4E9", "#F0E442", "#000000"
PALETTE = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, BLACK)
"""Okabe and Ito's colours, told apart with every common colour vision; yellow is too pale for lines."""
GREY, LIGHT = "#6B6B6B", "#D9D9D9"

DPI = 220

STYLE: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # travels with Matplotlib: the same picture on every machine
    "mathtext.fontset": "dejavusans",
    "font.size": 8.5,
    "axes.titlesize": 8.5,
    "axes.labelsize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.edgecolor": "#333333",
    "axes.prop_cycle": "cycler('color', [" + ", ".join(repr(c.lstrip("#")) for c in PALETTE) + "])",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.6,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "lines.linewidth": 1.6,
    "lines.markersize": 4,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "legend.handlelength": 2.0,
    "hatch.linewidth": 0.6,
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "savefig.dpi": DPI,
    "pdf.fonttype": 42,  # text stays text
    "path.simplify": True,
}

P = ParamSpec("P")
R = TypeVar("R")


@contextlib.contextmanager
def style() -> Generator[None]:
    """Put the project's style in force for the block."""
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()  # not the user's matplotlibrc: the same picture everywhere
        mpl.rcParams.update(STYLE)  # pyright: ignore[reportCallIssue, reportArgumentType]
        yield


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function that draws: it runs in the project's style."""

    @functools.wraps(draw)
    def inside(*args: P.args, **kwargs: P.kwargs) -> R:
        with style():
            return draw(*args, **kwargs)

    return inside


def new_figure(width: float = 6.9, height: float = 3.0) -> Figure:
    """Return an empty figure, in inches, that belongs to no window and to no global list."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


@styled
def render(figure: Figure, suffix: str) -> bytes:
    """Return the figure as the bytes of a "png" or "pdf" file, without dates or versions in it.

    Raises:
        ValueError: for another suffix.
    """
    metadata: dict[str, dict[str, None]] = {
        "png": {"Software": None},
        "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    }
    kind = suffix.lstrip(".").lower()
    if kind not in metadata:
        raise ValueError(f"a picture's file name must end in .png or .pdf, got {suffix!r}")
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=DPI, metadata=metadata[kind])
    return buffer.getvalue()


def write_whole(path: str | os.PathLike[str], data: bytes) -> Path:
    """Write a file in one piece: readers see the old one or the new one, and a failure leaves nothing behind."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(data)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def save(figure: Figure, stem: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Write ``stem``.png and ``stem``.pdf; both are rendered before either is written.

    Returns:
        The two paths.
    """
    png, pdf = render(figure, "png"), render(figure, "pdf")
    return write_whole(f"{os.fspath(stem)}.png", png), write_whole(f"{os.fspath(stem)}.pdf", pdf)


def mark_fixed_points(axes: Axes, at: Array, stable: Array, size: float = 5.5) -> None:
    """Mark fixed points on the diagonal: stable ones filled, unstable ones open. NaN are skipped."""
    for position, good in zip(np.ravel(at), np.ravel(stable), strict=True):
        if np.isfinite(position):
            face = BLACK if good else "white"
            axes.plot([position], [position], "o", ms=size, mfc=face, mec=BLACK, mew=1.1, zorder=6, clip_on=False)


def line_fixed_points(axes: Axes, at: Array, stable: Array) -> None:
    """Draw fixed points as levels: stable ones solid, unstable ones dashed. NaN are skipped."""
    for position, good in zip(np.ravel(at), np.ravel(stable), strict=True):
        if np.isfinite(position):
            axes.axhline(
                position,
                color=GREEN if good else VERMILION,
                lw=0.9,
                ls="-" if good else (0, (4, 2.5)),
                zorder=1.5,
            )


def draw_cobweb(axes: Axes, orbit: Array, color: str = BLUE, settled: int = 0) -> None:
    """Draw an orbit x_0, x_1, … as a cobweb: up to the curve, across to the diagonal.

    Args:
        axes: where.
        orbit: shape (n+1,).
        color: of the steps.
        settled: how many of the last steps to draw in full strength over the earlier ones; 0 draws all alike.
    """
    orbit = to_numpy(orbit)
    x, y = np.repeat(orbit, 2)[:-1], np.concatenate([[orbit[0]], np.repeat(orbit, 2)[2:]])
    if settled:
        axes.plot(x, y, color=color, lw=0.6, alpha=0.35, zorder=2)
        x, y = x[-2 * settled :], y[-2 * settled :]
    axes.plot(x, y, color=color, lw=0.9, zorder=3)


_TICKS = (1e-12, 1e-9, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 0.5)


def probability_ticks(low: float, high: float, most: int = 9) -> tuple[list[float], list[str]]:
    """Return log-odds and labels of round probabilities between two log-odds: 10⁻³, .1, .5, .9, 1−10⁻³, …"""

    def label(p: float, upper: bool) -> str:
        if p >= 0.01:
            return f"{1 - p if upper else p:g}"
        power = f"10^{{{round(np.log10(p))}}}"
        return f"$1-{power}$" if upper else f"${power}$"

    lower = [(float(logit(p)), label(p, False)) for p in _TICKS]
    upper = [(-at, label(p, True)) for (at, _), p in zip(lower, _TICKS, strict=True) if p < 0.5]
    inside = [tick for tick in lower + upper[::-1] if low <= tick[0] <= high]
    while len(inside) > most:
        inside = inside[::2]
    return [at for at, _ in inside], [text for _, text in inside]


def probability_axis(axes: Axes, which: str, low: float, high: float, most: int = 9) -> None:
    """Make the "x" or "y" axis, whose data are log-odds, run from ``low`` to ``high`` and read as probabilities."""
    ticks, labels = probability_ticks(low, high, most)
    if which == "x":
        axes.set_xlim(low, high)
        axes.set_xticks(ticks, labels)
    else:
        axes.set_ylim(low, high)
        axes.set_yticks(ticks, labels)


@styled
def prediction(
    dynamics: Recursion, trajectory: Trajectory, fixed: FixedPoints | None = None, title: str | None = None
) -> Figure:
    """Return the picture of one question: the map with its cobweb, and p_n against n.

    Probabilities are spread as log-odds where p_ref or the orbit falls below 0.02.

    Args:
        dynamics: a recursion without batch.
        trajectory: one of its orbits, shape (n+1,).
        fixed: its fixed points; computed if not given.
        title: a line above the picture; the parameters if not given.

    Raises:
        ValueError: for a batch of questions.
    """
    from matplotlib.ticker import MaxNLocator

    if batch_shape(dynamics) or np.ndim(trajectory.log_odds) != 1:
        raise ValueError(f"a picture shows one question, got a batch of shape {batch_shape(dynamics)}")
    fixed = fixed_points(dynamics) if fixed is None else fixed
    orbit, reference = to_numpy(trajectory.log_odds), float(logit(dynamics.p_ref))
    levels, stable = to_numpy(fixed.log_odds), to_numpy(fixed.stable)
    shown = [*orbit, reference, *levels[np.isfinite(levels)]]
    spread = bool(min(reference, *orbit) < logit(0.02))
    low, high = (max(min(shown) - 1, -40.0), min(max(shown) + 1, 14.0)) if spread else (0.0, 1.0)
    scale: Callable[[Any], Any] = (lambda x: np.clip(x, low, high)) if spread else sigmoid

    figure = new_figure(6.9, 3.3)
    left, right = figure.subplots(1, 2)
    state = np.linspace(low, high, 1001) if spread else logit(np.linspace(1e-6, 1 - 1e-6, 1001))
    image = to_numpy(dynamics.step(state))
    inside = image <= high if spread else np.full(image.shape, True)
    left.plot(scale(state[inside]), scale(image[inside]), color=ORANGE, lw=2.0, label="map $h$")
    left.plot([low, high], [low, high], color=GREY, lw=0.8, label="$p_n=p_{n-1}$")
    draw_cobweb(left, scale(orbit))
    mark_fixed_points(left, scale(levels), stable)
    left.plot(scale(orbit[:1]), scale(orbit[:1]), "s", ms=4, color=BLUE)
    left.set(xlabel="$p_{n-1}$", ylabel="$p_n$", title="The map and the orbit from $p_0$")
    left.set_box_aspect(1)

    steps = np.arange(len(orbit))
    line_fixed_points(right, scale(levels), stable)
    right.axhline(float(scale(np.array(reference))), color=GREY, lw=1.0, ls=":")
    right.plot(steps, scale(orbit), "-o", color=BLUE, lw=0.9, ms=3 if len(orbit) <= 120 else 1.2, clip_on=False)
    right.set(xlabel="iteration $n$", ylabel="$p_n$", title="Success probability")
    right.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if spread:
        for axes, which in ((left, "x"), (left, "y"), (right, "y")):
            probability_axis(axes, which, low, high, most=4 if which == "x" else 9)
    else:
        left.set(xlim=(0, 1), ylim=(0, 1))
        right.set(ylim=(-0.02, 1.02))
    figure.legend(handles=list(_legend(stable, levels)), loc="outside lower center", ncols=6)
    alone = int(to_numpy(fixed.status)) in (Status.ABOVE_FOLD, Status.MIRROR)
    note = rf",  $\alpha={dynamics.alpha:g}$" if dynamics.alpha != 1 else ""
    note += "; no interior fixed point" if alone else ""
    figure.suptitle(title or rf"$\beta={dynamics.beta:g}$,  $p_{{\mathrm{{ref}}}}={dynamics.p_ref:g}${note}")
    return figure


def _legend(stable: Array, levels: Array) -> Iterable[Any]:
    from matplotlib.lines import Line2D

    yield Line2D([], [], color=ORANGE, lw=2.0, label="map $h$")
    yield Line2D([], [], color=BLUE, lw=0.9, marker="o", ms=3, label="orbit")
    yield Line2D([], [], color=GREY, lw=1.0, ls=":", label=r"$p_{\mathrm{ref}}$")
    if np.any(stable):
        yield Line2D([], [], color=GREEN, lw=0.9, marker="o", mfc=BLACK, mec=BLACK, label="stable $p^*$")
    if np.any(np.isfinite(levels) & ~stable):
        yield Line2D(
            [],
            [],
            color=VERMILION,
            lw=0.9,
            ls=(0, (4, 2.5)),
            marker="o",
            mfc="white",
            mec=BLACK,
            label="unstable $p^*$",
        )
