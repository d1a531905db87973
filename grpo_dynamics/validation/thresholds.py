"""What a run promises: the table [validation] of its config, against which the report says pass or fail."""

from __future__ import annotations

import dataclasses

from grpo_dynamics.arrays import require


@dataclasses.dataclass(frozen=True)
class Thresholds:
    """Bounds that a comparison must keep; those that are None are not asked for.

    Args:
        median: of |measured − predicted| success probability, over questions and iterations, ≥ 0.
        percentile_95: the 95th percentile of the same, ≥ 0.
        iterations: only iterations up to this one count for the two above, ≥ 1; all if None.
        p_infinity: median over questions of |p_∞ − p*|, ≥ 0.
        coverage: least share of the intervals that hold the prediction, in [0, 1]; asked for where p was sampled only.
        oscillating: least number of questions that oscillate and should, ≥ 0.
        oscillating_at_most: largest number of questions that oscillate, whether they should or not, ≥ 0.
        nearer_than_paper: whether the prediction must be nearer, in the median, than the paper's ε = 1e-5, G = ∞.

    Raises:
        ValueError: for a value out of range.

    >>> Thresholds(median=0.01, percentile_95=0.05, iterations=10).median
    0.01
    """

    median: float | None = None
    percentile_95: float | None = None
    iterations: int | None = None
    p_infinity: float | None = None
    coverage: float | None = None
    oscillating: int | None = None
    oscillating_at_most: int | None = None
    nearer_than_paper: bool = False

    def __post_init__(self) -> None:
        for name in ("median", "percentile_95", "p_infinity"):
            if getattr(self, name) is not None:
                require(
                    f"validation.{name}", getattr(self, name), "a finite number >= 0", lambda x: (x >= 0) & (x < 1e9)
                )
        if self.coverage is not None:
            require("validation.coverage", self.coverage, "between 0 and 1", lambda x: (x >= 0) & (x <= 1))
        for name, least in (("iterations", 1), ("oscillating", 0), ("oscillating_at_most", 0)):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
                raise ValueError(f"validation.{name} must be an integer >= {least}, got {value!r}")
