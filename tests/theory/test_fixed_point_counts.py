"""The number of fixed points of 100,000 systems, against a count that shares nothing with the package."""

import numpy as np

import grpo_dynamics as gd
from tests import brute_force
from tests.strategies import EDGE


def random_p_ref(rng, n):
    # a third each near 0, in the middle, near 1: log-odds-uniform
    return np.clip(gd.sigmoid(rng.uniform(-EDGE, EDGE, n)), 1e-12, 1 - 1e-12)


def random_eps(rng, n, share_of_zeros):
    return np.where(rng.random(n) < share_of_zeros, 0.0, 10 ** rng.uniform(-12, np.log10(0.25), n))


def random_alpha(rng, n):
    return np.where(rng.random(n) < 0.5, 1.0, rng.uniform(1e-3, 1, n))


def near_folds(rng, problem, within):
    """The same systems with a β that is within 1e-15 … ``within`` (relative, which is the offset of F) of a fold."""
    beta = brute_force.on_a_fold(problem, rng)
    offset = 10 ** rng.uniform(-15, np.log10(within), beta.size) * rng.choice([-1, 1], beta.size)
    beta = beta * (1 + offset)
    return beta, (beta >= 1e-3) & (beta <= 1e3)


def near_cusps(rng, n):
    """ε-smoothed systems next to the cusp β_c, L_c, where three fixed points come out of one."""
    eps = 10 ** rng.uniform(-8, np.log10(0.25), n)
    turn = 2 * np.arcsinh(np.sqrt(0.5 + 1 / (8 * eps)))
    beta = 1 / (3 * np.sqrt(3 * eps) * (1 + 4 * eps)) * (1 + 10 ** rng.uniform(-14, -2, n) * rng.choice([-1, 1], n))
    anchor = turn - 1 / (beta * np.sqrt(0.25 / np.cosh(turn / 2) ** 2 + eps))
    anchor *= 1 + 10 ** rng.uniform(-16, -6, n) * rng.choice([-1, 1], n)
    keep = (np.abs(anchor) < EDGE) & (beta >= 1e-3) & (beta <= 1e3)
    return beta[keep], gd.sigmoid(anchor[keep]), eps[keep]


def batches(rng):
    """(normalisation, brute-force problem) for every kind of system."""
    for placement, n, folds in (("variance", 50_000, 14_000), ("std", 22_000, 8_000)):
        beta, alpha = 10 ** rng.uniform(-3, 3, n), random_alpha(rng, n)
        p_ref, eps = random_p_ref(rng, n), random_eps(rng, n, 0.1)
        yield gd.Whitened(eps, placement), brute_force.whitened(beta, alpha, p_ref, eps, placement)

        alpha, p_ref = random_alpha(rng, folds), random_p_ref(rng, folds)
        eps = random_eps(rng, folds, 0.1)
        start = brute_force.whitened(np.ones(folds), alpha, p_ref, eps, placement)
        beta, found = near_folds(rng, start, within=1e-9)
        alpha, p_ref, eps, beta = alpha[found], p_ref[found], eps[found], beta[found]
        yield gd.Whitened(eps, placement), brute_force.whitened(beta, alpha, p_ref, eps, placement)

    beta, p_ref, eps = near_cusps(rng, 6_000)
    yield gd.Whitened(eps), brute_force.whitened(beta, np.ones_like(beta), p_ref, eps)

    for size in range(2, 65):
        for silent in ("keep", "drop"):
            eps = float(rng.choice([0.0, 1e-6, 1e-4, 1e-2]))
            options = (size, eps, str(rng.choice(["variance", "std"])), int(rng.integers(2)), silent)
            n = 120
            beta, alpha, p_ref = 10 ** rng.uniform(-3, 3, n), random_alpha(rng, n), random_p_ref(rng, n)
            near, found = near_folds(rng, brute_force.group(beta, alpha, p_ref, *options), within=1e-9)
            beta = np.where(found & (np.arange(n) % 2 == 0), near, beta)
            yield gd.FiniteGroup(*options), brute_force.group(beta, alpha, p_ref, *options)


def test_counts_of_100_000_systems():
    """Random ones, and thousands within 1e-9 of a fold or next to a cusp; DEGENERATE is an answer only there."""
    rng = np.random.default_rng(2503_06639)
    systems, close, degenerate, wrong = 0, 0, 0, []
    for normalization, problem in batches(rng):
        found = gd.fixed_points(gd.Recursion(problem.beta, problem.p_ref, normalization, problem.alpha))
        truth, folds = brute_force.count(problem)
        merged = found.status == gd.Status.DEGENERATE
        right = np.where(merged, (folds > 0) & (np.abs(found.count - truth) <= folds), found.count == truth)
        right &= found.status != gd.Status.NOT_CONVERGED
        right &= (found.status == gd.Status.ABOVE_FOLD) == (found.count == 0)
        systems += truth.size
        close += int(np.sum(folds > 0))
        degenerate += int(np.sum(merged))
        for i in np.flatnonzero(~right):
            name = type(normalization).__name__
            options = {k: v if np.ndim(v) == 0 else float(v[i]) for k, v in vars(normalization).items()}
            where = {k: float(getattr(problem, k)[i]) for k in ("beta", "p_ref", "alpha")}
            wrong.append(
                f"{name}({options}), {where}: {found.count[i]} {gd.Status(int(found.status[i])).name}, "
                f"truth {truth[i]}, {folds[i]} folds within 1e-9"
            )
    print(f"{systems} systems, {close} within 1e-9 of a fold, {degenerate} degenerate")
    assert systems >= 100_000
    assert close >= 10_000
    assert len(wrong) == 0, "such as\n" + "\n".join(wrong[:20])
