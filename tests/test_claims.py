"""The registry: no claim without a check, no check that is not there, nothing of the paper without a claim."""

from __future__ import annotations

import ast
import functools
import json
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import brentq

import grpo_dynamics as gd
from grpo_dynamics.claims import CERTIFIED, Claim, Group, Kind, claims, counts, prove_all, proved
from grpo_dynamics.cli import main
from grpo_dynamics.symbolic import Strength, theorems
from paper_figures import FIGURES, goldens

ROOT = Path(__file__).parent.parent
DATA = tomllib.loads((ROOT / "grpo_dynamics" / "claims.toml").read_text(encoding="utf-8"))
NOTEBOOKS = {f"docs/notebooks/{path.name}" for path in (ROOT / "docs" / "notebooks").glob("*.md")}


@functools.cache
def every() -> tuple[Claim, ...]:
    return claims()


@functools.cache
def strengths() -> dict[str, Strength]:
    return prove_all()


@functools.cache
def functions_in(file: str) -> frozenset[str]:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def exists(check: str) -> bool:
    sort, _, name = check.partition(":")
    if check.startswith("tests/"):
        file, _, test = check.partition("::")
        return (ROOT / file).is_file() and test.startswith("test_") and test in functions_in(file)
    if check.startswith("docs/"):
        return check in NOTEBOOKS
    known = {"symbolic": theorems(), "figure": FIGURES, "golden": set(goldens.paper_values()["id"])}
    return sort in known and name in known[sort]


def test_every_check_is_there() -> None:
    missing = sorted({check for claim in every() for check in claim.checks if not exists(check)})
    assert not missing, "these checks of grpo_dynamics/claims.toml do not exist:\n" + "\n".join(missing)


def test_no_claim_without_a_check_and_no_empty_cell() -> None:
    ids = [claim.id for claim in every()]
    assert len(set(ids)) == len(ids)
    for claim in every():
        assert claim.checks, claim.id
        assert len(set(claim.checks)) == len(claim.checks), claim.id
        for cell in (claim.id, claim.statement, claim.source, claim.kind, claim.status, claim.group):
            assert cell.strip(), claim
    print("\n", len(ids), "claims:", counts(every()))


def test_nothing_without_a_claim() -> None:
    checked = {check for claim in every() for check in claim.checks}
    wanted = {f"symbolic:{id}" for id in theorems()} | {f"figure:{name}" for name in FIGURES} | NOTEBOOKS
    wanted |= {f"golden:{id}" for id in goldens.paper_values()["id"]}
    assert not sorted(wanted - checked)


def test_the_registry_names_the_theorems_and_figures_that_there_are() -> None:
    assert set(DATA["theorems"]) == set(theorems())
    assert set(DATA["figures"]) == set(FIGURES) - set(theorems())
    for theorem, checks in DATA["theorems"].items():
        assert any(check.startswith("docs/notebooks/") for check in checks), f"{theorem} has no notebook"


def test_a_notebook_named_as_check_proves_the_theorem() -> None:
    for claim in every():
        for notebook in (check for check in claim.checks if check in NOTEBOOKS):
            text = (ROOT / notebook).read_text(encoding="utf-8")
            for theorem in claim.named("symbolic"):
                assert "theorem(" in text, notebook
                assert f'"{theorem}"' in text, f"{claim.id}: {notebook} does not prove {theorem}"


def test_every_remark_on_the_paper_is_among_the_errors_or_no_error() -> None:
    no_error = {"lemma1", "thm7"}  # "it is also necessary", "enough for its use"
    remarked = {t.id for t in theorems().values() if t.remark and t.source.startswith("2503.06639")}
    evidence = {id for claim in every() if claim.group == Group.ERRORS for id in claim.named("symbolic")}
    assert remarked - no_error <= evidence


def test_proofs_are_as_strong_as_the_kind_says() -> None:
    expected = {Kind.PROVED: Strength.PROVED, Kind.READ: Strength.PROVED, Kind.CERTIFIED: Strength.CERTIFIED}
    for claim in every():
        if claim.kind in expected:
            assert min(strengths()[id] for id in claim.named("symbolic")) >= expected[claim.kind], claim.id
    assert {id for id, strength in strengths().items() if strength == Strength.CERTIFIED} == CERTIFIED


def test_status_is_what_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {claim.id: claim for claim in every()}
    assert found["thm3"].status == "add --prove"
    assert found["fig5-5-0.2"].status == goldens.AGREES
    assert found["error-figure2-eps"].status == goldens.INCONSISTENT
    assert found["gsm8k-after"].status == goldens.MEASURED
    assert found["lyapunov"].status == "make test"
    monkeypatch.setattr("grpo_dynamics.claims.prove_all", lambda *_: {**strengths(), "thm3": Strength.FAILED})
    after = {claim.id: claim for claim in claims(prove=True)}
    assert (after["thm3"].status, after["thm3"].holds) == ("failed", False)
    assert (after["li-yorke"].status, after["li-yorke"].holds) == ("certified on a box", True)
    assert {claim.status for claim in after.values()} & {"add --prove"} == set()


# ---- the command -----------------------------------------------------------------------------------------------------


def test_the_table_in_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["claims"]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    for group in Group:
        assert group.words in text
    for claim in every():
        assert claim.id in text
    assert f"{len(every())} claims. The paper: " in " ".join(text.split())


def test_kinds_and_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["claims", "--kind", "read_off", "--kind", "papers", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == ["command", "version", "paper", "claims", "counts", "holds"]
    assert {claim["kind"] for claim in found["claims"]} == {"read off", "the paper's measurement"}
    assert main(["claims", "thm3", "error-figure4-title"]) == 0
    text = capsys.readouterr().out
    assert "symbolic:thm3" in text
    assert "golden:fig4-title-1" in text
    assert "thm2" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_prove_and_fail(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("grpo_dynamics.claims.prove_all", lambda *_: {**strengths(), "thm3": Strength.FAILED})
    assert main(["claims", "thm2", "--prove", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["claims"][0]["status"] == "proved"
    assert main(["claims", "--prove"]) == 1
    assert "failed" in capsys.readouterr().out


def test_only_the_named_theorems_are_proved() -> None:
    ran: list[str] = []
    chosen = [claim for claim in every() if claim.id in ("thm2", "error-thm10-limit")]
    assert [claim.status for claim in proved(chosen, lambda done, of, what: ran.append(what))] == ["proved", "proved"]
    assert set(ran) == {"thm2", "thm10", "tv-sharp", "done"}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["thm33"], r"claim must be one that .* lists \(such as thm3\), got 'thm33'"),
        (["--kind", "sure"], r"kind must be one of proved, certified, .*, got 'sure'"),
        (["--kind"], r"--kind must be followed by a value, got nothing"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["claims", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(rf"error: {line}\n", err), err


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["claims", "--help"]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert all(kind.name.lower() in " ".join(text.split()) for kind in Kind)


# ---- checks of claims that have no other home ------------------------------------------------------------------------


def test_the_worked_example_has_ddof_1() -> None:
    """rewards 1,0,0,1,1,0,1,0: the popular 0.53 and ±0.94 divide by G−1; ddof 0 gives 0.5 and ±1, as Ω(1/2)/2 does."""
    rewards = np.array([1, 0, 0, 1, 1, 0, 1, 0])
    centred = rewards - rewards.mean()
    assert round(rewards.std(ddof=1), 2) == 0.53
    assert round(np.abs(centred / rewards.std(ddof=1)).max(), 2) == 0.94
    assert rewards.std() == 0.5
    assert np.abs(centred / rewards.std()).max() == 1.0
    assert gd.Whitened(0.0).positive(0.0) == 1.0


def test_a_batch_level_std_couples_the_questions() -> None:
    """Advantages (r − p_i)/σ_B: their gap is 1/σ_B for every question i, and σ_B depends on the other questions."""

    def gaps(p: np.ndarray) -> np.ndarray:
        advantage = {r: r - p for r in (0, 1)}  # the mean over each question's own samples is taken off
        sigma = np.sqrt(np.mean(p * advantage[1] ** 2 + (1 - p) * advantage[0] ** 2))
        return advantage[1] / sigma - advantage[0] / sigma

    batch = np.array([0.1, 0.5, 0.9])
    np.testing.assert_allclose(gaps(batch), 1 / np.sqrt(np.mean(batch * (1 - batch))), rtol=1e-14)
    assert gaps(np.array([0.1, 0.5, 0.99]))[0] > gaps(batch)[0]


def test_realistic_groups_remove_most_instabilities() -> None:
    """Shares of a grid of (β, p_ref) that have several fixed points, or an orbit from p_ref that does not settle."""
    beta, p_ref = np.geomspace(0.05, 20, 30)[:, None], gd.sigmoid(np.linspace(-12, 6, 45))

    def shares(normalization: gd.Normalization) -> tuple[float, float]:
        question = gd.Recursion(beta, p_ref, normalization)
        several = gd.fixed_points(question).count > 1
        moving = np.isin(gd.limit(question).kind, [gd.LimitKind.CYCLE, gd.LimitKind.IRREGULAR])
        return float(np.mean(several | moving)), float(np.mean(moving))

    exact, of_64, of_8 = shares(gd.Whitened(1e-5)), shares(gd.FiniteGroup(64)), shares(gd.FiniteGroup(8))
    assert [round(share[0], 2) for share in (exact, of_64, of_8)] == pytest.approx([0.49, 0.13, 0.01], abs=0.015)
    assert of_64[1] > 0.8 * exact[1]  # hard questions oscillate nearly as often in groups of 64
    assert of_8[1] < 0.2 * exact[1]


def k3_fixed_point(beta: float, p_ref: float, normalization: gd.Normalization) -> float:
    def excess(p: float) -> float:
        return p * (1 - p) * float(normalization.gap(gd.logit(p))) - beta * (p - p_ref)

    return float(brentq(excess, p_ref, 1 - 1e-12, xtol=1e-14))


def test_where_each_kl_term_ends() -> None:
    groups = gd.FiniteGroup(8)
    assert gd.fixed_points(gd.Recursion(1.0, 0.1, groups)).p[0] == pytest.approx(0.41953, abs=5e-6)
    assert k3_fixed_point(1.0, 0.1, groups) == pytest.approx(0.55959, abs=5e-6)
    assert gd.fixed_points(gd.grpo(1.0, 0.1)).p[0] == pytest.approx(0.4530, abs=5e-5)


@pytest.mark.parametrize("estimator", ["k2", "k3"])
def test_a_sampled_policy_ends_where_its_kl_term_says(estimator: str) -> None:
    """Ten outcomes, three right, softmax logits; on-policy gradient of sampled groups of 8, the term in the loss."""
    rng = np.random.default_rng(3)
    right = np.arange(10) < 3
    reference = np.where(right, 0.1 / 3, 0.9 / 7)
    logits, groups, tail = np.log(reference), 2000, []
    for step in range(1200):
        policy = np.exp(logits - logits.max())
        policy /= policy.sum()
        outcomes = np.searchsorted(np.cumsum(policy)[:-1], rng.random((groups, 8)))
        rewards = right[outcomes].astype(float)
        spread = rewards.std(axis=1, keepdims=True)
        advantages = np.divide(rewards - rewards.mean(axis=1, keepdims=True), spread, where=spread > 0, out=0 * rewards)
        log_ratio = np.log(policy / reference)  # of π to π_ref, at each outcome
        slope = log_ratio if estimator == "k2" else 1 - np.exp(-log_ratio)  # of the term, in log π
        force = np.bincount(outcomes.ravel(), (advantages - slope[outcomes]).ravel(), minlength=10) / outcomes.size
        logits = logits + 0.5 * (force - policy * force.sum())
        if step >= 800:
            tail.append(policy[right].sum())
    predicted = {"k2": 0.41953, "k3": 0.55959}[estimator]
    assert np.mean(tail) == pytest.approx(predicted, abs=0.005)
