"""`design`: the β it prints takes p to the target, and what it offers instead is reached."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import grpo_dynamics as gd
from grpo_dynamics.cli import design
from grpo_dynamics.targets import aim

DESIGNS = {
    "β = 1.139 takes p from 0.2 to 0.6.": (["0.6", "0.2"], True, "ok"),
    "No β holds p at 0.9": (["0.9", "0.2"], False, "unstable"),
    "β = 0.6496 takes p from 0.2 to 0.9.": (["0.9", "0.2", "--group-size", "8"], True, "ok"),
    "No β takes p from 0.01 to 0.5": (["0.5", "0.01"], False, "ok"),
    "No β reaches 0.1: every β takes p above p_ref = 0.2": (["0.1", "0.2"], False, "not_above_reference"),
    "No β holds p at 0.5: without a KL term": (["0.5", "0.2", "--variant", "mirror_grpo"], False, "mirror"),
}


@pytest.mark.parametrize("sentence", DESIGNS)
def test_design(sentence, answer, printed):
    (target, p_ref, *options), arrives, status = DESIGNS[sentence]
    arguments = ["design", "--target", target, "--p-ref", p_ref, *options]
    found = answer(*arguments)
    assert (found["arrives"], found["status"]) == (arrives, status)
    assert sentence in found["verdict"]
    assert sentence in printed(*arguments)
    keys = "command version settings verdict target beta multiplier stable status arrives limit"
    assert list(found) == [*keys.split(), "nearest_below", "nearest_above", "arrives_from_p0_above"]
    if arrives:
        normalization = gd.FiniteGroup(8) if options else gd.Whitened()
        rec = gd.Recursion(found["beta"], float(p_ref), normalization)
        assert rec.iterate(2000).p[-1] == pytest.approx(float(target), rel=1e-8)


@pytest.mark.parametrize(("target", "p_ref"), [(0.9, 0.2), (0.5, 0.01), (0.02, 0.0001)])
def test_what_design_offers_instead_is_reached(target, p_ref, answer):
    found = answer("design", "--target", str(target), "--p-ref", str(p_ref))
    for side, sign in (("nearest_below", -1), ("nearest_above", 1)):
        point = found[side]
        assert sign * (point["log_odds"] - gd.logit(target)) > 0
        rec = gd.grpo(point["beta"], p_ref)
        assert point["multiplier"] == pytest.approx(float(rec.multiplier(point["log_odds"])))
        orbit = rec.iterate(100_000).log_odds  # near a fold a step leaves all but 1e-4 of the way
        assert orbit[-1] == pytest.approx(point["log_odds"], rel=1e-4)


@pytest.mark.parametrize("alpha", [1.0, 0.01])
def test_the_nearest_target_is_the_fold(alpha, answer):
    """From p_ref = 0.2 the stable branch rises to its fold; no p* above it is held, every p* below it is."""
    point = answer("design", "--target", ".9", "--p-ref", ".2", "--alpha", str(alpha))["nearest_below"]
    ((fold, _),) = gd.stable_betas(0.2, gd.Whitened(), alpha)
    assert 0.8335 < point["p"] < gd.fixed_points(gd.two_kl(fold * (1 + 1e-12), 0.2, alpha)).p[0]
    assert fold < point["beta"] < fold * (1 + 1e-6)
    assert point["multiplier"] < 1


SLOW = {"grpo": ([".8336", ".2"], 1.0), "two_kl": ([".4", ".2"], 1e-4)}


@pytest.mark.parametrize("name", SLOW)
def test_slow_is_not_never(name, answer, printed):
    (target, p_ref), alpha = SLOW[name]
    arguments = ["design", "--target", target, "--p-ref", p_ref, "--variant", "two_kl", "--alpha", str(alpha)]
    found = answer(*arguments)
    assert (found["arrives"], found["limit"]["kind"]) == (True, "fixed_point")
    assert f"takes p from {float(p_ref)} to {float(target)}." in printed(*arguments)


def test_an_undecided_orbit_is_no_refusal():
    found = aim(0.6, 0.2, gd.Whitened())
    where = dataclasses.replace(found.limit, kind=np.int8(gd.LimitKind.UNDECIDED), steps=np.int64(20_000))
    sentence = design.verdict(dataclasses.replace(found, arrives=False, limit=where))
    assert sentence.startswith("Not decided whether p gets from 0.2 to 0.6: ")
    assert "has not settled after 20000 steps" in sentence
    assert "No β" not in sentence
    assert "wanders" not in sentence
