"""Where orbits of the GRPO map can end: negative Schwarzian, two critical orbits, and a 3-cycle."""

from __future__ import annotations

from typing import Any

import sympy as sp  # pyright: ignore[reportMissingTypeStubs]

from grpo_dynamics.symbolic.definitions import beta, eps, p, schwarzian, success_map
from grpo_dynamics.symbolic.half_log_odds import by_half, cosh, half_gap, mirrored, sinh, slope, slope_steps, t, width
from grpo_dynamics.symbolic.proof import Step, Strength, Theorem, argument, identity, positive

smoothing: Any = sp.Symbol("epsilon", nonnegative=True)
"""ε ≥ 0, where ε = 0 is included."""
room: Any = sp.Symbol("k", positive=True)
"""cosh²y = 1 + k with k = sinh²y > 0."""


def _schwarzian() -> list[Step]:
    x = sp.Symbol("x", real=True)
    f = sp.Function("f")(x)
    bend = sp.diff(f, x, 2) / sp.diff(f, x)
    log_slope = sp.log(sinh) - sp.Rational(3, 2) * sp.log(width)
    bent = cosh / sinh - 12 * eps * sinh * cosh / width
    c = cosh**2
    twist = 1 / sinh**2 + 12 * eps * (2 * c - 1 + 4 * eps * c) / width**2
    visible = (
        1 / room + 12 * smoothing * (1 + 2 * room + 4 * smoothing * (1 + room)) / (1 + 4 * smoothing * (1 + room)) ** 2
    )
    a, b = sp.symbols("a b", real=True)
    near = -x + a * x**2 + b * x**3
    twice = sp.expand(near.subs(x, near))
    return [
        *slope_steps(),
        identity(
            r"$Sf=u'-\frac12u^2$ with $u=f''/f'$, for every $f$", schwarzian(f, x), sp.diff(bend, x) - bend**2 / 2
        ),
        argument(r"$S(y_{\rm ref}+g/\beta)=Sg$, as $u$ is the same", "u is unchanged by an affine map after f"),
        identity(
            r"$u=(\log|g'|)'=\coth y-12\varepsilon\sinh y\cosh y/w$ (odd in $y$, so $y>0$ is enough)",
            by_half(log_slope),
            bent,
        ),
        identity(r"$-u'=1/\sinh^2y+12\varepsilon\,(2\cosh^2y-1+4\varepsilon\cosh^2y)/w^2$", -by_half(bent), twist),
        identity(
            r"with $\cosh^2y=1+k$: $-u'=1/k+12\varepsilon(1+2k+4\varepsilon(1+k))/w^2$",
            (1 / (c - 1) + 12 * eps * (2 * c - 1 + 4 * eps * c) / width**2 - twist),
            0,
        ),
        positive(
            r"all its terms are signed, so $-u'>0$ for every $\varepsilon\geq0$ and $y\neq0$, and $Sg=u'-\frac12u^2<0$",
            visible,
        ),
        identity(
            r"at a flip, $f=-x+ax^2+bx^3+\dots$, $Sf(0)=-6(a^2+b)$",
            schwarzian(near, x).subs(x, 0),
            -6 * (a**2 + b),
        ),
        identity(
            r"and $f\circ f=x-2(a^2+b)x^3+\dots=x+\frac13Sf(0)\,x^3+\dots$: attracting at the flip itself, which is "
            r"supercritical",
            twice.coeff(x, 1) + twice.coeff(x, 2) * a + twice.coeff(x, 3),
            1 - 2 * (a**2 + b),
        ),
    ]


def _critical_orbits() -> list[Step]:
    lowest = 1 / sp.sqrt(1 + 4 * eps)
    end = sp.Symbol("s", nonnegative=True)
    at_end = (1 + end**2) / sp.sqrt(4 * end**2 + 4 * eps * (1 + end**2) ** 2)
    c = 1 + sp.Symbol("k", nonnegative=True)
    return [
        *slope_steps(),
        identity(
            r"$g'$ is 0 where $\sinh y$ is: at $y=0$, $p=\frac12$, only",
            slope.subs(t, 1),
            0,
        ),
        identity(
            r"it is a quadratic minimum: $g''(0)=(1+4\varepsilon)^{-3/2}$",
            by_half(slope).subs(t, 1),
            (1 + 4 * eps) ** sp.Rational(-3, 2),
        ),
        positive(r"which is positive", (1 + 4 * eps) ** sp.Rational(-3, 2)),
        identity(r"$g(0)=1/\sqrt{1+4\varepsilon}$", half_gap.subs(t, 1), lowest),
        identity(r"$g(-y)=g(y)$: $p=0$ and $p=1$ have the same image", mirrored(half_gap), half_gap),
        identity(
            r"in $s=\sqrt{(1-p)/p}=e^{-y}$, $g=(1+s^2)/\sqrt{4s^2+4\varepsilon(1+s^2)^2}$, smooth at $s=0$ for "
            r"$\varepsilon>0$",
            half_gap**2,
            (at_end**2).subs(end, 1 / t),
        ),
        identity(
            r"with slope 0 there: $p=1$ is a critical point in the variable $s$", sp.diff(at_end, end).subs(end, 0), 0
        ),
        identity(r"its value is $1/(2\sqrt\varepsilon)$", at_end.subs(end, 0), 1 / (2 * sp.sqrt(eps))),
        identity(
            r"$g<1/(2\sqrt\varepsilon)$ at finite $y$: $1/(4\varepsilon)-g^2=1/(4\varepsilon w)$",
            1 / (4 * eps) - c / (1 + 4 * eps * c),
            1 / (4 * eps * (1 + 4 * eps * c)),
        ),
        positive(r"which is positive", 1 / (4 * eps * (1 + 4 * eps * c))),
        argument(
            r"let $I=[m,M]$, $m=f(0)$, $M=f(\pm\infty)=y_{\rm ref}+1/(2\beta\sqrt\varepsilon)$. Then $f(\mathbb "
            r"R)\subset[m,M)$, so "
            r"$f(I)\subset I$, every cycle lies in $I$, and on the compact $I$ the map is smooth with at most one "
            r"critical point, $y=0$. "
            r"This keeps the end point $p=1$ (at $y=\infty$) out of the interval and leaves its image $M$ as an end of "
            r"it",
            "the bounds of the steps before",
        ),
        argument(
            r"the immediate basin in $I$ of a cycle that attracts, if only from one side, contains a critical point or "
            r"an end of $I$: "
            r"$0$ or $m=f(0)$, on the orbit of $p=\frac12$, or $M$, on the orbit of $p=1$. Basins of different cycles "
            r"are disjoint: at "
            r"most two such cycles, and the two orbits find them all",
            "Singer's theorem (de Melo–van Strien, One-Dimensional Dynamics, Thm II.6.1), with schwarzian",
        ),
        argument(
            r"an attractor of positive measure that is no cycle is the limit set of the orbit of $y=0$ or a cycle of "
            r"intervals with "
            r"$0$ inside",
            "Blokh–Lyubich theorem for maps with one quadratic turning point and negative Schwarzian derivative",
        ),
        argument(
            r"$\varepsilon=0$: $M=\infty$, and $p=1$ is an attractor itself, since $f(y)-y\to\infty$. If there is no "
            r"fixed point with "
            r"multiplier above 1 every orbit goes there, or to the one on the fold from one side. Otherwise call it "
            r"$y_u>0$: every "
            r"$|y|>y_u$ goes to $p=1$, so a cycle that attracts in $y$ has a bounded immediate basin. If that held no "
            r"critical point, "
            r"an iterate would be increasing on it and fix its ends and a point of the cycle between: slope 1 "
            r"somewhere on either side, "
            r"so above 1 at the point, which then repels. So at most one such cycle, and the orbit of $p=\frac12$ "
            r"finds it",
            "mean value theorem; minimum principle for |f'| under negative Schwarzian derivative",
        ),
        identity(
            r"in the variable $p$ itself $h'(1)=h(1)(1-h(1))/(2\beta\varepsilon^{3/2})$",
            sp.diff(success_map(p), p).subs(p, 1),
            success_map(1) * (1 - success_map(1)) / (2 * beta * eps ** sp.Rational(3, 2)),
        ),
        positive(
            r"which is positive: $p=1$ is no critical point of $p\mapsto h(p)$",
            1 / (2 * beta * eps ** sp.Rational(3, 2)),
        ),
    ]


def _enclosures(low: str, high: str, steps: int) -> list[tuple[Any, Any]]:
    """The interval [low, high] of y and its images under the map of li-yorke, each with the slope on it.

    No interval here holds 0, so f is monotone on each (its slope has the sign of y) and the images of the ends enclose.
    """
    import mpmath  # pyright: ignore[reportMissingTypeStubs]

    iv: Any = mpmath.iv

    ratio, smooth = iv.mpf("1e-5"), iv.mpf("1e-5")
    anchor = iv.log(ratio / (1 - ratio)) / 2

    def width_at(y: Any) -> Any:
        return 1 + 4 * smooth * ((iv.exp(y) + iv.exp(-y)) / 2) ** 2

    def forward(y: Any) -> Any:
        return anchor + (iv.exp(y) + iv.exp(-y)) / 2 / iv.sqrt(width_at(y)) / 10

    def image(cell: Any) -> Any:
        if cell.a <= 0 <= cell.b:
            return iv.mpf(["-inf", "inf"])
        ends = [forward(iv.mpf(end)) for end in (cell.a, cell.b)]
        return iv.mpf([min(end.a for end in ends), max(end.b for end in ends)])

    def steep(y: Any) -> Any:
        return (iv.exp(y) - iv.exp(-y)) / 2 / (10 * width_at(y) * iv.sqrt(width_at(y)))

    cells = [iv.mpf([low, high])]
    for _ in range(steps):
        cells.append(image(cells[-1]))
    return [(cell, steep(cell)) for cell in cells]


_LOW, _HIGH = "0.1450", "0.1459"


def _returns() -> bool:
    cells = [cell for cell, _ in _enclosures(_LOW, _HIGH, 3)]
    return bool(cells[0].a < cells[3].a and cells[3].b < cells[0].b)


def _apart() -> bool:
    first, second, third = (cell for cell, _ in _enclosures(_LOW, _HIGH, 2))
    return bool(second.b < first.a and first.b < third.a)


def _contracts() -> bool:
    slopes = [steep for _, steep in _enclosures(_LOW, _HIGH, 2)]
    product = slopes[0] * slopes[1] * slopes[2]
    return bool(product.a > -1 and product.b < 1)


def _li_yorke() -> list[Step]:
    box = rf"interval arithmetic over $J=[{_LOW},{_HIGH}]$ in $y$"
    return [
        *slope_steps(),
        Step(r"$f^3(J)\subset J$", Strength.CERTIFIED, _returns, box),
        Step(r"$f(J)$ lies below $J$ and $f^2(J)$ above", Strength.CERTIFIED, _apart, box),
        argument(
            r"$f^3$ has a fixed point in $J$; as $f(J)$ misses $J$ its least period is 3",
            "intermediate value theorem",
        ),
        argument(
            r"$f$ maps the compact interval $[f(0),f(\infty)]$ into itself (critical-orbits): it has cycles of every "
            r"period and an "
            r"uncountable set of pairs of orbits that come together and part again for ever",
            "Li–Yorke theorem, 1975",
        ),
        Step(r"$|(f^3)'|<1$ on $J$: the 3-cycle attracts", Strength.CERTIFIED, _contracts, box),
    ]


THEOREMS: list[Theorem] = [
    Theorem(
        "schwarzian",
        "The Schwarzian derivative is negative",
        r"Sf<0\text{ for }f(y)=y_{\rm ref}+g(y)/\beta\text{ and every }y\neq0",
        "ours",
        (r"$\varepsilon\geq0$", r"in log-odds ($y$ or $L$)"),
        _schwarzian,
        r"Where $g'=0$, at $y=0$, it is not defined. Its sign belongs to the variable $y$: another one need not share "
        r"it.",
    ),
    Theorem(
        "critical-orbits",
        "Two orbits find every attracting cycle",
        r"\text{at most two attracting cycles; each attracts the orbit of }p=\tfrac12\text{ or that of }p=1",
        "ours",
        (
            r"$\varepsilon>0$; for $\varepsilon=0$, $p=1$ is itself an attractor and the orbit of $p=\frac12$ finds "
            r"the other",
        ),
        _critical_orbits,
        r"$p=1$ is a critical point in the variable $\sqrt{(1-p)/p}$, not in $p$, where $h'(1)>0$: Singer's theorem is "
        r"used on "
        r"$[f(0),f(\infty)]$, whose ends lie on the two orbits. Attractors that are no cycles need the theorem of "
        r"Blokh and Lyubich.",
    ),
    Theorem(
        "li-yorke",
        "A 3-cycle, so chaos in the sense of Li and Yorke",
        r"\beta=10,\ p_{\rm ref}=10^{-5},\ \varepsilon=10^{-5}:\ \text{there is a cycle of least period }3",
        "ours",
        (r"$\beta=10$, $p_{\rm ref}=10^{-5}$, $\varepsilon=10^{-5}$",),
        _li_yorke,
        r"The cycle attracts, so the chaos that Li and Yorke give is on a null set of starts: almost every start ends "
        r"on this "
        r"3-cycle or on another attracting cycle (critical-orbits).",
    ),
]
