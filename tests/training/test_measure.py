"""Three ways to find p: they agree, and the interval covers."""

import numpy as np
import pytest
import torch
from scipy import stats

from grpo_dynamics.training.arm import prepare
from grpo_dynamics.training.measure import Measure, choose, sampled
from grpo_dynamics.training.tasks import make_task
from tests.training.tiny import tiny_config, tiny_model


@pytest.fixture(scope="module")
def arm(tmp_path_factory):
    torch.set_num_threads(1)
    task = make_task("sums", questions=4, largest=3)
    model = tiny_model(tmp_path_factory.mktemp("model"), task, spread=1.0)
    return prepare(tiny_config(model, task={"kind": "sums", "questions": 4, "largest": 3}, questions=4), model)


def measured(arm, method, **options):
    import dataclasses

    changed = dataclasses.replace(arm.config.measurement, method=method, **options)
    assert choose(changed, arm.task, arm.policy) == method
    measure = Measure(
        method, changed, arm.task, arm.task.questions, arm.policy, arm.engine, lambda n: [n * 10 + i for i in range(4)]
    )
    return measure(arm.model, 1)


def test_enumeration_teacher_forcing_and_sampling_agree(arm):
    exact, forced, drawn = (measured(arm, m, samples=4000) for m in ("enumerated", "teacher_forced", "sampled"))
    for a, b, c in zip(exact, forced, drawn, strict=True):
        assert a.log_odds == pytest.approx(b.log_odds, abs=1e-4)
        assert a.low == a.p == a.high
        assert c.successes == round(c.p * 4000)
        # four questions, two sides: a bound that 99.9 % of samples keep
        again = sampled(c.successes, 4000, 0.9999)
        low, high = again.low, again.high
        assert low <= a.p <= high


def test_equal_answers_to_a_question_are_judged_once(arm):
    import dataclasses

    asked = []

    def counted(questions, completions):
        asked.extend((question.id, text) for question, text in zip(questions, completions, strict=True))
        return arm.task.verifier(questions, completions)

    options = dataclasses.replace(arm.config.measurement, method="sampled", samples=4000)
    task = dataclasses.replace(arm.task, verifier=counted)
    seeds = [10, 11, 12, 13]
    found = Measure("sampled", options, task, task.questions, arm.policy, arm.engine, lambda n: seeds)(arm.model, 1)
    assert found == measured(arm, "sampled", samples=4000)
    assert len(asked) == len(set(asked)) < 4 * 4000
    samples = arm.engine.sample(arm.prompts, 4000, arm.task.max_completion_tokens, seeds)
    for q, question in enumerate(task.questions):
        texts = arm.policy.decode(samples.ids(q, g) for g in range(4000))
        right = [v.success for v in arm.task.verifier([question] * 4000, texts)]
        assert found[q].successes == sum(right)  # every sample counts, not every different one


def test_small_batches_of_teacher_forcing_change_nothing(arm):
    options = arm.config.measurement
    whole, parts = (
        Measure("teacher_forced", options, arm.task, arm.task.questions, arm.policy, arm.engine, lambda n: [], batch)
        for batch in (1024, 1)
    )
    for a, b in zip(whole(arm.model, 0), parts(arm.model, 0), strict=True):
        assert a.log_odds == pytest.approx(b.log_odds, abs=1e-5)


def test_auto_takes_the_first_way_that_is_possible(arm):
    import dataclasses

    auto = arm.config.measurement
    assert choose(auto, arm.task, arm.policy) == "enumerated"
    few = dataclasses.replace(auto, most_answers=10)
    assert choose(few, arm.task, arm.policy) == "teacher_forced"
    unknown = dataclasses.replace(
        arm.task, questions=tuple(dataclasses.replace(question, correct=None) for question in arm.task.questions)
    )
    assert choose(few, unknown, arm.policy) == "sampled"
    with pytest.raises(ValueError, match=r'measurement.method must be "sampled" where'):
        choose(dataclasses.replace(few, method="teacher_forced"), unknown, arm.policy)
    # without the list of right answers the verifier is asked, and says the same
    listed = measured(arm, "enumerated")
    measure = Measure("enumerated", auto, unknown, unknown.questions, arm.policy, arm.engine, lambda n: [])
    assert [s.log_odds for s in measure(arm.model, 1)] == pytest.approx([s.log_odds for s in listed])


@pytest.mark.parametrize(("successes", "samples"), [(0, 10), (3, 10), (10, 10), (1, 64), (500, 1000)])
def test_wilson_is_the_interval_of_scipy(successes, samples):
    expected = stats.binomtest(successes, samples).proportion_ci(0.9, method="wilson")
    found = sampled(successes, samples, 0.9)
    np.testing.assert_allclose((found.low, found.high), (expected.low, expected.high), atol=1e-12)
