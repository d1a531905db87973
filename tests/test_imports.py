"""What an import brings in: the theory starts in a fraction of a second because it leaves these alone."""

import json
import pathlib
import subprocess
import sys

import pytest

import grpo_dynamics

PACKAGE = pathlib.Path(grpo_dynamics.__file__).parent


def modules_after(code: str) -> set[str]:
    script = f"import json, sys\n{code}\nprint(json.dumps(sorted(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    return set(json.loads(out.splitlines()[-1]))


@pytest.mark.parametrize("module", ["torch", "sympy", "matplotlib", "scipy", "polars", "array_api_compat", "mpmath"])
def test_import_brings_in_numpy_alone(module):
    assert module not in modules_after("import grpo_dynamics")


def test_the_numbers_need_no_torch_either():
    code = (
        "import grpo_dynamics as gd\n"
        "gd.fixed_points(gd.Recursion([1.0, 2.0], 0.2, gd.FiniteGroup(8)))\n"
        "gd.limit(gd.grpo(1.0, 0.2)); gd.design(0.5, 0.2); gd.grpo(1.0, 0.2).iterate(5)"
    )
    assert {"torch", "sympy", "matplotlib"}.isdisjoint(modules_after(code))


def test_the_theory_never_imports_torch_by_name():
    """NumPy in, NumPy out; torch in, torch out: through the array-API standard, without a second implementation."""
    files = [*(PACKAGE / "theory").glob("*.py"), *(PACKAGE / f"{n}.py" for n in ("arrays", "logodds", "normalization"))]
    assert len(files) >= 7
    for path in files:
        for line in path.read_text(encoding="utf-8").splitlines():
            words = line.split()
            assert not (words[:1] in (["import"], ["from"]) and words[1].split(".")[0] == "torch"), path


def test_training_knows_nothing_of_the_theory_that_it_is_held_against():
    files = [*(PACKAGE / "training").rglob("*.py")]
    assert len(files) > 30
    told = ("grpo_dynamics.theory", "grpo_dynamics.questions", "grpo_dynamics.prediction", "import grpo_dynamics as")
    assert not [path for path in files for name in told if name in path.read_text(encoding="utf-8")]


def test_every_public_name_is_there_and_documented():
    assert len(set(grpo_dynamics.__all__)) == len(grpo_dynamics.__all__)
    for name in grpo_dynamics.__all__:
        assert getattr(grpo_dynamics, name).__doc__, name
