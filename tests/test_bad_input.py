"""Wrong arguments raise ValueError in one line that names the argument, its value and what is allowed."""

import re

import numpy as np
import pytest

import grpo_dynamics as gd

NAN, INF = float("nan"), float("inf")
BETAS = [0, 0.0, -1.0, NAN, INF, -INF, "1", "abc", None, [1.0, -1.0], [1.0, NAN], [], {}, 1j]
PROBABILITIES = [0, 1, 0.0, 1.0, -0.1, 1.5, NAN, INF, "0.2", None, [0.1, 0.0], [0.5, NAN], {}, 1j]


def refuses(make, name, value, allowed):
    with pytest.raises(ValueError, match=re.escape(name)) as caught:
        make()
    message = str(caught.value)
    assert "\n" not in message
    assert allowed in message
    if np.ndim(value) == 0 and not isinstance(value, dict):
        assert repr(value) in message or str(value) in message


def bad(values):
    return pytest.mark.parametrize("value", [v for v in values if v != []], ids=repr)


@bad(BETAS)
def test_beta(value):
    refuses(lambda: gd.Recursion(value, 0.2), "beta", value, "> 0")
    refuses(lambda: gd.grpo(value, 0.2), "beta", value, "> 0")
    refuses(lambda: gd.dr_grpo(value, 0.2), "beta", value, "> 0")
    refuses(lambda: gd.amplifies_v1(value, 0.2), "beta", value, "> 0")


@bad(PROBABILITIES)
def test_probabilities(value):
    refuses(lambda: gd.Recursion(1.0, value), "p_ref", value, "between 0 and 1")
    refuses(lambda: gd.design(0.5, value), "p_ref", value, "between 0 and 1")
    refuses(lambda: gd.design(value, 0.2), "target", value, "between 0 and 1")
    refuses(lambda: gd.amplifies_v1(1.0, value), "p_ref", value, "between 0 and 1")
    refuses(lambda: gd.stable_betas(value), "p_ref", value, "between 0 and 1")
    if value is not None:  # None: start at p_ref
        refuses(lambda: gd.grpo(1.0, 0.2).iterate(3, p0=value), "p0", value, "between 0 and 1")
        refuses(lambda: gd.limit(gd.grpo(1.0, 0.2), p0=value), "p0", value, "between 0 and 1")


@bad([-1e-9, -1.0, NAN, INF, "1e-5", None, [1e-5, -1e-5], {}, 1j])
def test_eps(value):
    for make in (gd.Whitened, lambda v: gd.FiniteGroup(8, v), lambda v: gd.grpo(1.0, 0.2, v)):
        refuses(lambda make=make: make(value), "eps", value, ">= 0")
    refuses(lambda: gd.amplifies_v1(1.0, 0.2, value), "eps", value, ">= 0")


@bad([-0.1, 1.1, NAN, INF, "1", None, [0.5, 2.0], {}, 1j])
def test_alpha(value):
    refuses(lambda: gd.Recursion(1.0, 0.2, alpha=value), "alpha", value, "between 0 and 1")
    refuses(lambda: gd.two_kl(1.0, 0.2, value), "alpha", value, "between 0 and 1")
    refuses(lambda: gd.stability_bound(1.0, alpha=value), "alpha", value, "between 0 and 1")
    refuses(lambda: gd.contraction_bound(alpha=value), "alpha", value, "between 0 and 1")
    refuses(lambda: gd.design(0.5, 0.2, alpha=value), "alpha", value, "between 0 and 1")


@bad([1, 0, -8, 2.5, NAN, INF, True, False, "8", [8, 1], [8, 2.5], {}, 1j])
def test_group_size(value):
    refuses(lambda: gd.FiniteGroup(value), "group_size", value, "integer >= 2")
    refuses(lambda: gd.MeanOnly(value), "group_size", value, "integer >= 2")


def test_group_size_none_is_for_the_exact_mean_only():
    refuses(lambda: gd.FiniteGroup(None), "group_size", None, "integer >= 2")


def test_arrays_of_booleans_are_no_group_sizes():
    refuses(lambda: gd.FiniteGroup(np.array([True, True])), "group_size", [True], "integer >= 2")


@bad([2, -1, 0.5, "0", None, True, NAN])
def test_ddof(value):
    refuses(lambda: gd.FiniteGroup(8, ddof=value), "ddof", value, "0, 1")


@bad(["Variance", "", "none", None, 0])
def test_choices(value):
    refuses(lambda: gd.Whitened(1e-5, value), "eps_placement", value, "'variance', 'std'")
    refuses(lambda: gd.FiniteGroup(8, 0.0, value), "eps_placement", value, "'variance', 'std'")
    refuses(lambda: gd.FiniteGroup(8, silent_groups=value), "silent_groups", value, "'keep', 'drop'")


@bad([None, "whitened", 1.0, gd.Whitened])
def test_normalization(value):
    refuses(lambda: gd.Recursion(1.0, 0.2, value), "normalization", value, "Normalization")


@bad([-1, 2.5, True, "3", None, NAN])
def test_numbers_of_steps(value):
    refuses(lambda: gd.grpo(1.0, 0.2).iterate(value), "n must", value, "integer >= 0")
    refuses(lambda: gd.limit(gd.grpo(1.0, 0.2), max_steps=value), "max_steps", value, "integer >= 1")


def test_starts():
    refuses(lambda: gd.grpo(1.0, 0.2).iterate(3, log_odds0=NAN), "log_odds0", NAN, "not NaN")
    refuses(lambda: gd.grpo(1.0, 0.2).iterate(3, log_odds0="a"), "log_odds0", "a", "not NaN")
    refuses(lambda: gd.grpo(1.0, 0.2).iterate(3, p0=0.1, log_odds0=1.0), "p0", 0.1, "not both")


@pytest.mark.parametrize(
    "make",
    [
        lambda: gd.Recursion(np.ones(3), np.full(4, 0.2)),
        lambda: gd.Recursion(np.ones((2, 3)), 0.2, gd.Whitened(np.full(2, 1e-5))),
        lambda: gd.Recursion(1.0, [0.1, 0.2], gd.MeanOnly(), [0.1, 0.2, 0.3]),
        lambda: gd.Recursion([1.0, 2.0], 0.2, gd.FiniteGroup([8, 16, 32])),
        lambda: gd.FiniteGroup([8, 16], [1e-4, 1e-5, 1e-6]),
        lambda: gd.design(np.full(3, 0.5), np.full(2, 0.2)),
        lambda: gd.grpo(np.ones(3), 0.2).iterate(3, p0=[0.1, 0.2]),
        lambda: gd.limit(gd.grpo(np.ones(3), 0.2), p0=[0.1, 0.2]),
    ],
)
def test_shapes_that_do_not_broadcast(make):
    with pytest.raises(ValueError, match="broadcast"):
        make()


def test_the_message_says_which_shapes():
    with pytest.raises(ValueError, match=r"beta \(3,\).*p_ref \(4,\)"):
        gd.Recursion(np.ones(3), np.full(4, 0.2))


def test_the_message_says_which_element():
    with pytest.raises(ValueError, match=r"beta must be .* > 0, got -3\.0 at index \(1, 0\)"):
        gd.Recursion([[1.0, 2.0], [-3.0, 4.0]], 0.2)


def test_ragged_lists():
    with pytest.raises(ValueError, match="beta"):
        gd.Recursion([[1.0], [1.0, 2.0]], 0.2)


@pytest.mark.parametrize("function", [gd.logit])
@bad([-0.1, 1.1, NAN, "a", None])
def test_logit_refuses_what_is_no_probability(function, value):
    """NaN never passes silently."""
    refuses(lambda: function(value), "p", value, "between 0 and 1")


def test_a_nan_state_is_refused():
    for make in (
        lambda: gd.grpo(1.0, 0.2).step(NAN),
        lambda: gd.stability_bound(NAN),
        lambda: gd.rising_bound(gd.grpo(1.0, 0.2), NAN),
    ):
        with pytest.raises(ValueError, match="log_odds"):
            make()


def test_padding_stays_visible():
    """Fixed points are padded with NaN: a function of a state hands it on, and never makes a number of it."""
    for value in (gd.sigmoid(NAN), gd.Whitened().gap(NAN), gd.FiniteGroup(8).gap(NAN), gd.Whitened().gap_slope(NAN)):
        assert np.isnan(value)
