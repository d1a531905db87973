"""Hypothesis strategies for the ranges the package promises, and the table of reward normalisations."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from hypothesis import strategies as st

import grpo_dynamics as gd
from tests import exact

EDGE = math.log(1e12)
"""|L_ref| at p_ref = 1e-12 and 1 − 1e-12."""


def powers_of_ten(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high).map(lambda x: 10.0**x)


betas = powers_of_ten(-3, 3)
p_refs = st.floats(-EDGE, EDGE).map(lambda x: float(gd.sigmoid(x)))
positive_eps = powers_of_ten(-12, math.log10(0.25))
all_eps = st.just(0.0) | positive_eps
alphas = st.just(1.0) | st.floats(1e-3, 1.0)
log_odds = st.floats(-60, 60)
placements = st.sampled_from(["variance", "std"])


@dataclasses.dataclass(frozen=True)
class Row:
    """One normalisation of the property-test table: the package's object and its definition in 50 digits."""

    name: str
    normalization: gd.Normalization
    gap: exact.Gap


def _whitened(eps: float, placement: Any) -> Row:
    return Row(f"whitened-{placement}-{eps:g}", gd.Whitened(eps, placement), exact.whitened(eps, placement))


def _group(size: int, eps: float = 0.0, placement: Any = "std", ddof: int = 0, silent: Any = "keep") -> Row:
    name = f"group-{size}-{placement}-{eps:g}-ddof{ddof}-{silent}"
    return Row(
        name,
        gd.FiniteGroup(size, eps, placement, ddof, silent),
        exact.finite_group(size, eps, placement, ddof, silent),
    )


NORMALIZATIONS = [
    *(_whitened(eps, placement) for placement in ("variance", "std") for eps in (0.0, 1e-12, 1e-5, 1e-2, 0.25)),
    Row("mean-only", gd.MeanOnly(), exact.mean_only()),
    Row("mean-only-8", gd.MeanOnly(8), exact.mean_only(8)),
    *(_group(size) for size in (2, 3, 4, 5, 8, 16, 64)),
    *(_group(8, 1e-4, placement, ddof) for placement in ("variance", "std") for ddof in (0, 1)),
    *(_group(16, 0.25, placement, 1) for placement in ("variance", "std")),
    *(_group(size, silent="drop") for size in (2, 3, 4, 8, 16, 64)),
    *(_group(8, 1e-4, placement, ddof, "drop") for placement in ("variance", "std") for ddof in (0, 1)),
]
"""A new normalisation adds its row here, and is tested by every property that asks for ``row``."""

finite_groups = st.builds(
    _group,
    st.integers(2, 64),
    st.just(0.0) | powers_of_ten(-12, math.log10(0.25)),
    placements,
    st.sampled_from([0, 1]),
    st.sampled_from(["keep", "drop"]),
)
