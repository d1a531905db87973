"""The fitted line finds the number that it is fitted to, and is no part of the prediction."""

import numpy as np
import pytest

import grpo_dynamics as gd
from grpo_dynamics.config import as_table
from grpo_dynamics.update_rule import Training
from grpo_dynamics.validation.compare import compare
from grpo_dynamics.validation.measured import Arm, canonical
from grpo_dynamics.validation.summary import summarize
from tests.validation.made_runs import success

P_REF = np.linspace(0.1, 0.8, 12)


@pytest.mark.parametrize("kappa", [0.03, 0.4, 1.0, 1.3])
def test_kappa_is_found(kappa):
    recursion = gd.grpo(2.0, P_REF)
    states = [gd.logit(P_REF)]
    for _ in range(8):
        states.append(states[-1] + kappa * (recursion.step(states[-1]) - states[-1]))
    arm = Arm("arm", {"training": as_table(Training(beta=2.0))}, canonical(success(np.stack(states))))
    found = compare(arm)
    assert found.fitted.kappa == pytest.approx(kappa, abs=1e-4)
    assert found.fitted.r2 == pytest.approx(1.0, abs=1e-6)
    np.testing.assert_allclose(found.fitted.orbit, np.stack(states), atol=1e-3)
    # the prediction stays what it was
    np.testing.assert_allclose(found.orbit.log_odds, recursion.iterate(8).log_odds, atol=1e-12)
    assert summarize(found)["fitted"]["kappa"] == found.fitted.kappa


def test_nothing_to_fit():
    arm = Arm("arm", {"training": as_table(Training())}, canonical(success(gd.logit(P_REF)[None])))
    assert np.isnan(compare(arm).fitted.kappa)
    assert summarize(compare(arm))["fitted"]["kappa"] is None
