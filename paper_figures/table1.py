"""Table 1: six variants of GRPO, every entry derived from one recursion by substituting, solving, differentiating.

L_n = α·L_ref + (1−α)·L_{n−1} + Δ_R + Ω/β with Δ_R = 0, as it is in the exact iteration from π_ref.
"""

from __future__ import annotations

import dataclasses
import functools

import polars as pl
import sympy as sp  # pyright: ignore[reportMissingTypeStubs]

from grpo_dynamics import MeanOnly, Recursion, Whitened, fixed_points

p, alpha, beta, eps, n = sp.symbols("p alpha beta varepsilon n", positive=True)
v = sp.Symbol("v", positive=True)  # the variance p(1−p)
L, L_ref, L_star, gap = sp.symbols("z_n-1 z_ref z^* Omega_n-1")  # z sorts behind the Greek letters
gap_at_star = sp.Symbol("Omega^*")  # Ω at the fixed point
rate = sp.Symbol("B", positive=True)  # |dΩ/dL| at the fixed point

MEAN = p * 1 + (1 - p) * 0
VARIANCE = sp.factor(p * (1 - MEAN) ** 2 + (1 - p) * (0 - MEAN) ** 2)

EXAMPLE = {"beta": 1.0, "p_ref": 0.2, "eps": 1e-5, "alpha": 0.5}


@dataclasses.dataclass(frozen=True)
class Variant:
    """A row: its name, whether rewards are divided by their standard deviation, and its KL anchor."""

    name: str
    whitened: bool
    anchor: sp.Expr

    @functools.cached_property
    def advantages(self) -> tuple[sp.Expr, sp.Expr]:
        """The advantages of r = 1 and r = 0, from A = (r − E r)/√(Var r + ε) or A = r − E r; v = Var r."""
        scale = sp.sqrt(v + eps) if self.whitened else sp.Integer(1)
        return (1 - MEAN) / scale, (0 - MEAN) / scale

    @functools.cached_property
    def gap(self) -> sp.Expr:
        """Ω = ω⁺ + ω⁻: what a success is worth more than a failure."""
        success, failure = self.advantages
        return sp.simplify(success - failure)

    @property
    def step_terms(self) -> list[sp.Expr]:
        """L_n as a sum over L_ref, L_{n−1} and the push, with Ω left as a symbol where it depends on p."""
        push = gap if self.whitened else self.gap
        return [term for term in (self.anchor * L_ref, (1 - self.anchor) * L, push / beta) if term != 0]

    @property
    def step(self) -> sp.Expr:
        """L_n as a function of L_{n−1}."""
        return sp.Add(*self.step_terms)

    @functools.cached_property
    def fixed_point(self) -> sp.Expr | None:
        """L* (with Ω at p* itself where it depends on p), or None: then L_n − L_{n−1} > 0 everywhere."""
        equation = sp.expand(self.step.subs({L: L_star, gap: gap_at_star}) - L_star)
        solutions = sp.solve(equation, L_star) if equation.has(L_star) else []
        return sp.collect(sp.expand(solutions[0]), gap_at_star) if solutions else None

    @property
    def multiplier_terms(self) -> list[sp.Expr]:
        """dL_n/dL_{n−1}: what is kept, and the slope (dΩ/dv)(dv/dp)(dp/dL)/β with dp/dL = p(1−p) = v."""
        slope = sp.diff(self.gap, v) * sp.expand(sp.diff(VARIANCE, p)) * v
        return [term for term in (1 - self.anchor, sp.factor(slope) / beta) if term != 0] or [sp.Integer(0)]

    @property
    def multiplier(self) -> sp.Expr:
        """dL_n/dL_{n−1}."""
        return sp.Add(*self.multiplier_terms)

    @functools.cached_property
    def smallest_stable_beta(self) -> tuple[sp.Expr, sp.Expr] | None:
        """The β at which the multiplier reaches −1 (for p* < ½) and +1 (for p* > ½), B = |dΩ/dL| at p*."""
        if not self.whitened or self.fixed_point is None:
            return None
        flip = sp.solve(1 - self.anchor - rate / beta + 1, beta)[0]
        fold = sp.solve(1 - self.anchor + rate / beta - 1, beta)[0]
        return rate / sp.expand(sp.cancel(rate / flip)), rate / sp.expand(sp.cancel(rate / fold))

    @functools.cached_property
    def after_n(self) -> sp.Expr | None:
        """L_n from L_0 = L_ref in closed form, where Ω does not depend on p."""
        if self.whitened:
            return None
        if not self.step.has(L):  # no memory: one step is all
            return self.step
        state, index = sp.Function("state"), sp.Symbol("n", integer=True)
        equation = state(index + 1) - self.step.subs(L, state(index))
        solved: sp.Expr = sp.rsolve(equation, state(index), {state(0): L_ref})  # pyright: ignore[reportAssignmentType]
        return L_ref + sp.together(sp.simplify(solved.subs(index, n) - L_ref))

    def recursion(self, **options: float) -> Recursion:
        """Return the numeric twin."""
        weight = Whitened(options["eps"]) if self.whitened else MeanOnly()
        value = options["alpha"] if self.anchor == alpha else float(self.anchor)
        return Recursion(options["beta"], options["p_ref"], weight, value)


one, zero = sp.Integer(1), sp.Integer(0)
VARIANTS = (
    Variant("GRPO", True, one),
    Variant("Dr. GRPO", False, one),
    Variant("Mirror GRPO", True, zero),
    Variant("Mirror Dr. GRPO", False, zero),
    Variant("Two-KL GRPO", True, alpha),
    Variant("Two-KL Dr. GRPO", False, alpha),
)


def data() -> pl.DataFrame:
    """Columns variant; in LaTeX weights, gap, recursion, fixed_point, multiplier, stability, after_n; and numbers.

    For ``EXAMPLE``, from p_0 = p_ref: p_1, p_star (the lowest fixed point), multiplier_at_p_star, p_50, and
    fixed_points (how many).
    """
    from paper_figures.table1_text import HEAD, entries, tex

    rows = []
    for variant in VARIANTS:
        recursion = variant.recursion(**EXAMPLE)
        fixed, orbit = fixed_points(recursion), recursion.iterate(50).p
        written = entries(variant, lambda expression: f"${tex(expression)}$")
        none = int(fixed.count) == 0
        rows.append(
            {
                "variant": variant.name,
                **{name: written[name] for name in HEAD},
                "p_1": float(orbit[1]),
                "p_star": None if none else float(fixed.p[0]),
                "multiplier_at_p_star": None if none else float(fixed.multiplier[0]),
                "p_50": float(orbit[50]),
                "fixed_points": int(fixed.count),
            }
        )
    return pl.DataFrame(rows, infer_schema_length=None)


def markdown(table: pl.DataFrame) -> str:
    from paper_figures import table1_text

    return table1_text.markdown(table)


def latex(table: pl.DataFrame) -> str:
    from paper_figures import table1_text

    return table1_text.latex(table)


def html(table: pl.DataFrame) -> str:
    from paper_figures import table1_text

    return table1_text.html(table)
