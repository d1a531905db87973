"""Table 1 in LaTeX, Markdown and HTML with MathML: how its entries are written, nothing computed."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import polars as pl
import sympy as sp  # pyright: ignore[reportMissingTypeStubs]
from sympy.printing.mathml import mathml  # pyright: ignore[reportMissingTypeStubs]

from paper_figures import table1 as derived

NAMES = {
    derived.L: r"L_{n-1}",
    derived.L_ref: r"L_{\mathrm{ref}}",
    derived.L_star: "L^*",
    derived.gap: r"\Omega(p_{n-1})",
    derived.gap_at_star: r"\Omega(p^*)",
    derived.rate: r"\mathcal{B}(p^*)",
    derived.v: "p(1-p)",
}
HEAD = {
    "weights": r"Weights $\omega^+,\ \omega^-$",
    "gap": r"$\Omega=\omega^++\omega^-$",
    "recursion": r"Recursion $L_n=$",
    "fixed_point": r"Fixed point $L^*=$",
    "multiplier": r"$\mathrm{d}L_n/\mathrm{d}L_{n-1}$",
    "stability": "Stable",
    "after_n": r"$L_n$ from $L_0=L_{\mathrm{ref}}$",
}
EXAMPLE = {"p_1": "$p_1$", "p_star": "$p^*$", "multiplier_at_p_star": "multiplier", "p_50": "$p_{50}$"}


def tex(expression: sp.Expr) -> str:
    return sp.latex(expression, symbol_names=NAMES)


def entries(variant: derived.Variant, write: Callable[[sp.Expr], str]) -> dict[str, str]:
    """Return the cells of a row, each expression written by ``write`` (to LaTeX or MathML, with its delimiters)."""
    success, failure = variant.advantages
    cells = {
        "weights": f"{write(success)}, {write(-failure)}",
        "gap": write(variant.gap),
        "recursion": " + ".join(map(write, variant.step_terms)),
        "fixed_point": "none: p → 1" if variant.fixed_point is None else write(variant.fixed_point),
        "multiplier": " + ".join(map(write, variant.multiplier_terms)),
        "after_n": "–" if variant.after_n is None else write(variant.after_n),
    }
    bounds = variant.smallest_stable_beta
    if variant.fixed_point is None:
        cells["stability"] = "p = 1 attracts every orbit"
    elif bounds is None:
        cells["stability"] = "always"
    elif bounds[0] == bounds[1]:
        cells["stability"] = f"{write(sp.Gt(derived.beta, bounds[0]))}"
    else:
        low, high = (write(sp.Gt(derived.beta, bound)) for bound in bounds)
        cells["stability"] = f"{low} if p* < ½; {high} if p* > ½"
    return cells


def _example() -> str:
    values = derived.EXAMPLE
    return f"β = {values['beta']:g}, p_ref = {values['p_ref']:g}, ε = {values['eps']:g}, α = {values['alpha']:g}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _rows(table: pl.DataFrame) -> Iterable[tuple[str, list[str], list[str]]]:
    for row in table.iter_rows(named=True):
        yield row["variant"], [row[name] for name in HEAD], [_number(row[name]) for name in EXAMPLE]


NOTE = (
    "L = log(p/(1−p)). Derived from L_n = α L_ref + (1−α) L_{n−1} + Δ_R + Ω/β with Δ_R = 0, as in the exact iteration "
    "from π_ref; the paper keeps Δ_R in the last two rows. B(p) = p(1−p)|2p−1| / (2[p(1−p)+ε]^{3/2})."
)


def markdown(table: pl.DataFrame) -> str:
    head = ["Method", *HEAD.values(), *EXAMPLE.values()]
    lines = [" | ".join(["", *head, ""]).strip(), "|" + "---|" * len(head)]
    lines += [f"| {name} | " + " | ".join([*cells, *numbers]) + " |" for name, cells, numbers in _rows(table)]
    return "\n".join([*lines, "", f"{NOTE} The last four columns: {_example()}; p_0 = p_ref; p* is the lowest.", ""])


def latex(table: pl.DataFrame) -> str:
    replace = {"p → 1": r"$p_n\uparrow 1$", "p* < ½": r"$p^*<\frac12$", "p* > ½": r"$p^*>\frac12$", "–": "--",
               "p = 1": "$p=1$"}  # fmt: skip
    head = ["Method", *HEAD.values(), *EXAMPLE.values()]
    lines = [
        r"% needs \usepackage{amsmath,booktabs,graphicx}",
        r"\begin{table}[t]",
        r"\centering",
        r"\resizebox{\linewidth}{!}{%",
        r"\begin{tabular}{l" + "l" * len(HEAD) + "r" * len(EXAMPLE) + "}",
        r"\toprule",
        " & ".join(head) + r" \\",
        r"\midrule",
    ]
    for name, cells, numbers in _rows(table):
        line = " & ".join([name, *cells, *numbers])
        for plain, formula in replace.items():
            line = line.replace(plain, formula)
        lines.append(line + r" \\[4pt]")
    values = derived.EXAMPLE
    caption = (
        r"Six variants of GRPO. $L=\log\frac{p}{1-p}$; $\Delta_R=0$, "
        r"as in the exact iteration from $\pi_{\mathrm{ref}}$; "
        r"$\mathcal{B}(p)=\frac{p(1-p)|2p-1|}{2[p(1-p)+\varepsilon]^{3/2}}$. Last four columns: "
        rf"$\beta={values['beta']:g}$, $p_{{\mathrm{{ref}}}}={values['p_ref']:g}$, $\varepsilon=10^{{-5}}$, "
        rf"$\alpha={values['alpha']:g}$, $p_0=p_{{\mathrm{{ref}}}}$; $p^*$ is the lowest fixed point."
    )
    lines += [r"\bottomrule", r"\end{tabular}}", rf"\caption{{{caption}}}", r"\label{tab:variants}", r"\end{table}", ""]
    return "\n".join(lines)


def html(table: pl.DataFrame) -> str:
    """Return a table element with MathML, which every current browser shows without a library."""

    def math(expression: sp.Expr) -> str:
        written = mathml(expression, printer="presentation")
        for plain, wanted in _MATHML.items():
            written = written.replace(plain, wanted)
        return f"<math>{written}</math>"

    head = ["Method", "ω⁺, ω⁻", "Ω", "Lₙ =", "L* =", "dLₙ/dLₙ₋₁", "Stable", "Lₙ from L₀ = L_ref"]
    head += ["p₁", "p*", "multiplier", "p₅₀"]
    lines = ["<table><thead><tr>", *(f"<th>{title}</th>" for title in head), "</tr></thead><tbody>"]
    for variant, (name, _, numbers) in zip(derived.VARIANTS, _rows(table), strict=True):
        cells = entries(variant, math)
        row = [name, *(cells[column] for column in HEAD), *numbers]
        lines.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>")
    return "".join([*lines, f"</tbody></table><p class=small>{NOTE} Last four columns: {_example()}, p₀ = p_ref.</p>"])


_MATHML = {
    "<mi>v</mi>": "<mrow><mi>p</mi><mo>(</mo><mn>1</mn><mo>−</mo><mi>p</mi><mo>)</mo></mrow>",
    "<mi>z</mi>": "<mi>L</mi>",
    "<mi>varepsilon</mi>": "<mi>ε</mi>",
    "<mi>B</mi>": "<mrow><mi>B</mi><mo>(</mo><msup><mi>p</mi><mo>*</mo></msup><mo>)</mo></mrow>",
    "<mo>></mo>": "<mo>&gt;</mo>",
    "<mo>-</mo>": "<mo>−</mo>",
}
