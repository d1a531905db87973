"""All fixed points with multipliers of a million random systems, against one root each from scipy."""

from __future__ import annotations

import functools

import numpy as np
from clock import alternate, table, verdict
from scipy.optimize import brentq, elementwise

import grpo_dynamics as gd

CHUNKS = (2_000, 5_000, 10_000, 20_000, 50_000, 200_000)


def random_systems(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """β, p_ref and ε over the range of the accuracy target: log-uniform, log-odds-uniform, log-uniform."""
    rng = np.random.default_rng(seed)
    beta = 10 ** rng.uniform(-3, 3, n)
    p_ref = gd.sigmoid(rng.uniform(-27.6, 27.6, n))  # 1e-12 … 1 − 1e-12
    eps = 10 ** rng.uniform(-12, np.log10(0.25), n)
    return beta, p_ref, eps


def scipy_brackets(beta: np.ndarray, p_ref: np.ndarray, eps: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """L_ref and a bracket in d = L − L_ref on which the equation is monotone: from the bound to a fold, or back.

    More than scipy's user has: it takes the folds, the better part of the work, from this package.
    """
    anchor = gd.logit(p_ref)
    low, high = 1 / (beta * np.sqrt(0.25 + eps)), 1 / (beta * np.sqrt(eps))
    first, second = (fold - anchor for fold in gd.Whitened(eps).folds(beta))
    below = (first > low) & (_residual(first, anchor, beta, eps) >= 0)
    above = ~below & (second > low) & (second < high) & (_residual(second, anchor, beta, eps) <= 0)
    # the ends are attained in rounding: inflate
    low = np.where(above, second, low) * (1 - 1e-9)
    return anchor, low, np.where(below, np.minimum(first, high), high) * (1 + 1e-9)


def _residual(d: np.ndarray, anchor: np.ndarray, beta: np.ndarray, eps: np.ndarray) -> np.ndarray:
    t = np.exp(-np.abs(anchor + d))
    square = 1 + t
    square *= square
    return d - np.sqrt(square / (t + eps * square)) / beta


def _log_residual(d: np.ndarray, anchor: np.ndarray, beta: np.ndarray, eps: np.ndarray) -> np.ndarray:
    t = np.exp(-np.abs(anchor + d))
    square = 1 + t
    square *= square
    return np.log(beta * beta * d * d * (t + eps * square) / square)


def scipy_one_root(residual, chunk: int, anchor, beta, eps, low, high) -> np.ndarray:
    """One root of every system by scipy's vectorised Chandrupatla method, fed chunk by chunk."""
    root = np.empty_like(beta)
    for i in range(0, len(beta), chunk):
        part = slice(i, i + chunk)
        args = (anchor[part], beta[part], eps[part])
        root[part] = elementwise.find_root(residual, (low[part], high[part]), args=args).x
    return root


def brentq_one_root(anchor, beta, eps, low, high) -> list[float]:
    """One root of every system by a Python loop over scipy's scalar method, with a scalar residual from math."""
    from math import exp, sqrt

    def residual(d: float, anchor: float, beta: float, eps: float) -> float:
        t = exp(-abs(anchor + d))
        square = (1 + t) ** 2
        return d - sqrt(square / (t + eps * square)) / beta

    columns = (c.tolist() for c in (anchor, beta, eps, low, high))
    return [brentq(residual, lo, hi, args=(a, b, e), disp=False) for a, b, e, lo, hi in zip(*columns, strict=True)]


def measure(quick: bool) -> dict[str, object]:
    n, rounds, sample = (20_000, 1, 500) if quick else (1_000_000, 5, 10_000)
    beta, p_ref, eps = random_systems(n)
    anchor, *tight = scipy_brackets(beta, p_ref, eps)
    a_priori = [1 / (beta * np.sqrt(0.25 + eps)) * (1 - 1e-9), 1 / (beta * np.sqrt(eps)) * (1 + 1e-9)]
    brackets = {"a priori": (anchor, beta, eps, *a_priori), "fold to fold": (anchor, beta, eps, *tight)}

    # scipy's best case: for each kind of bracket the better form of the equation and chunk, found on some systems
    head = slice(0, min(n, 100_000))
    forms = {"plain": _residual, "log": _log_residual}
    tried = alternate(
        {
            f"{kind}, {form}, {chunk}": functools.partial(
                scipy_one_root, forms[form], chunk, *(c[head] for c in system)
            )
            for kind, system in brackets.items()
            for form in forms
            for chunk in CHUNKS
            if chunk <= n
        },
        rounds=1,
    )
    best = {kind: min((name for name in tried if name.startswith(kind)), key=tried.__getitem__) for kind in brackets}

    def scipy_best(kind: str) -> np.ndarray:
        _, form, chunk = best[kind].split(", ")
        return scipy_one_root(forms[form], int(chunk), *brackets[kind])

    dynamics = gd.Recursion(beta, p_ref, gd.Whitened(eps))
    found = gd.fixed_points(dynamics)
    roots = int(np.sum(found.count))
    agreement = {}
    for kind in brackets:
        theirs = scipy_best(kind)
        near = np.nanmin(np.abs(found.log_odds - (anchor + theirs)), axis=0) <= 1e-6 * (1 + np.abs(theirs))
        agreement[kind] = float(np.mean(near))
    exponents = -np.abs(anchor)
    few = tuple(c[:sample] for c in brackets["fold to fold"])
    seconds = alternate(
        {
            "fixed_points": lambda: gd.fixed_points(dynamics),
            "find_root, a priori": lambda: scipy_best("a priori"),
            "find_root, fold to fold": lambda: scipy_best("fold to fold"),
            "brentq": lambda: brentq_one_root(*few),
            "exp": lambda: np.exp(exponents),
        },
        rounds,
    )
    seconds["brentq"] *= n / sample
    ours, exp = seconds["fixed_points"], seconds["exp"]
    ratios = {name: s / ours for name, s in seconds.items() if name not in ("fixed_points", "exp")}
    equivalents = ours / roots / (exp / n)
    goal = {"find_root, a priori": verdict(ratios["find_root, a priori"], 4, at_least=True)}
    table(
        f"Fixed points of {n:,} random systems (medians of {rounds})",
        [
            (
                "gd.fixed_points: all roots, multipliers",
                f"{ours:.3f} s",
                f"{roots:,} roots, {ours / roots * 1e9:.0f} ns each",
            ),
            *(
                (
                    f"scipy find_root: one root, bracket {kind}, free",
                    f"{seconds[f'find_root, {kind}']:.3f} s",
                    f"{best[kind].split(', ', 1)[1]} at a time; agrees in {agreement[kind]:.2%}",
                )
                for kind in brackets
            ),
            (
                "scipy brentq loop: one root, bracket fold to fold",
                f"{seconds['brentq']:.2f} s",
                f"from {sample:,} systems",
            ),
            ("numpy.exp, one each", f"{exp * 1e3:.2f} ms", f"{exp / n * 1e9:.2f} ns each"),
            *((f"times faster than {name}", f"{ratio:.2f}", goal.get(name, "")) for name, ratio in ratios.items()),
            ("numpy.exp-equivalents per root", f"{equivalents:.0f}", verdict(equivalents, 120, at_least=False)),
        ],
    )
    return {
        "systems": n,
        "roots": roots,
        "seconds": seconds,
        "find_root_tried": {name: s * n / head.stop for name, s in tried.items()},
        "find_root_used": best,
        "find_root_agreement": agreement,
        "ns_per_root": ours / roots * 1e9,
        "times_faster": ratios,
        "exp_equivalents_per_root": equivalents,
    }
