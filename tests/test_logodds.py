"""Log-odds arithmetic against 50 digits, over the whole range of floats."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpo_dynamics.logodds import bernoulli_variance, complement, logit, sigmoid
from tests import exact
from tests.exact import ROUNDING, mp

# each function is a handful of correctly rounded operations and library calls good to 1 unit in the last place
FEW_ROUNDINGS = 8 * ROUNDING


def relative_error(value, reference) -> float:
    return float(abs(mp.mpf(float(value)) - reference) / abs(reference)) if reference else float(abs(value))


@given(st.floats(5e-324, 1.0, exclude_max=True))
def test_logit_has_every_digit(p):
    assert relative_error(logit(p), exact.logit(p)) <= FEW_ROUNDINGS


@given(st.floats(-50, -1.1).map(lambda x: 2.0**x), st.sampled_from([-1, 1]))
def test_logit_near_one_half_where_the_logarithms_cancel(distance, side):
    p = 0.5 + side * distance
    assert relative_error(logit(p), exact.logit(p)) <= FEW_ROUNDINGS


@pytest.mark.parametrize("p", [1e-300, 1e-16, 0.25, np.nextafter(0.25, 0), 0.75, np.nextafter(0.75, 1), 1 - 2**-53])
def test_logit_at_the_seams(p):
    assert relative_error(logit(p), exact.logit(p)) <= FEW_ROUNDINGS


def test_logit_at_its_ends():
    assert logit(0.0) == -np.inf
    assert logit(1.0) == np.inf
    assert logit(0.5) == 0.0


@given(st.floats(-700, 1e6))
def test_sigmoid_has_every_digit(log_odds):
    assert relative_error(sigmoid(log_odds), exact.sigmoid(log_odds)) <= FEW_ROUNDINGS


@given(st.floats(-1e6, 700))
def test_complement_has_every_digit_where_p_rounds_to_one(log_odds):
    assert relative_error(complement(log_odds), exact.sigmoid(-mp.mpf(log_odds))) <= FEW_ROUNDINGS


@given(st.floats(-700, 700))
def test_bernoulli_variance_has_every_digit(log_odds):
    assert relative_error(bernoulli_variance(log_odds), exact.variance(log_odds)) <= FEW_ROUNDINGS


@given(st.floats(-1e6, 1e6))
def test_even_and_odd(log_odds):
    assert sigmoid(log_odds) == complement(-log_odds)
    assert bernoulli_variance(log_odds) == bernoulli_variance(-log_odds)


@given(st.floats(-36, 36))
def test_logit_undoes_sigmoid(log_odds):
    # dL = dp/(p(1−p)): one rounding of p near 1 moves L by u/(1−p)
    bound = 4 * ROUNDING * (1 + abs(log_odds) + 1 / complement(log_odds))
    assert abs(logit(sigmoid(log_odds)) - log_odds) <= bound


@pytest.mark.parametrize("function", [sigmoid, complement, bernoulli_variance])
@pytest.mark.parametrize("log_odds", [-np.inf, -1e300, -1e6, -746.0, 0.0, 37.0, 746.0, 1e6, 1e300, np.inf])
def test_huge_log_odds_without_a_warning_even_if_the_caller_raises_on_floating_point_errors(function, log_odds):
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        value = function(log_odds)
    assert 0 <= value <= 1


def test_subnormal_results_are_right_to_one_subnormal():
    for log_odds in (-740.0, -745.0, -746.0, -800.0):
        assert abs(float(sigmoid(log_odds)) - float(exact.sigmoid(log_odds))) <= 5e-324


def test_shapes_dtypes_and_kinds():
    grid = np.linspace(-5, 5, 12).reshape(3, 4)
    for function in (sigmoid, complement, bernoulli_variance):
        assert function(grid).shape == (3, 4)
        assert function(grid).dtype == np.float64
        assert function(grid.astype(np.float32)).dtype == np.float32
        np.testing.assert_array_equal(function(grid.tolist()), function(grid))
        assert np.ndim(function(1)) == 0
        assert function(np.empty((0, 2))).shape == (0, 2)
    assert logit(np.float32(0.2)).dtype == np.float32


def test_arguments_are_not_changed():
    grid = np.linspace(0.1, 0.9, 9)
    before = grid.copy()
    logit(grid), sigmoid(grid), complement(grid), bernoulli_variance(grid)
    np.testing.assert_array_equal(grid, before)


def test_float32_is_accurate_to_float32():
    p = np.array([1e-30, 1e-3, 0.3, 0.4999, 0.5001, 0.9, 1 - 2**-24], dtype=np.float32)
    reference = np.array([float(exact.logit(float(x))) for x in p])
    np.testing.assert_allclose(logit(p), reference, rtol=8 * 2.0**-24)
