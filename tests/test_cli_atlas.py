"""`grpo-dynamics atlas`: what it writes is the package's answer, and what is wrong is refused in one line."""

import json
import re

import numpy as np
import polars as pl
import pytest

import grpo_dynamics as gd
from grpo_dynamics.cli import main
from grpo_dynamics.theory.regimes import Regime, regime

SMALL = ["--size", "12"]


@pytest.fixture
def blank(monkeypatch):
    """Pictures are not rendered: for tests of what is computed and said."""
    monkeypatch.setattr("grpo_dynamics.plotting.render", lambda figure, kind: kind.encode())


def test_what_is_written(tmp_path, answer):
    out = tmp_path / "new" / "folder"
    found = answer("atlas", "--beta", "5", "--p-ref", "0.001", *SMALL, "--out", str(out))
    assert sorted(found["files"]) == sorted(path.name for path in out.iterdir())
    names = {"phase", "ends", "orbits_over_p_ref", "orbits_over_beta"}
    pictures = {f"{name}.{kind}" for name in names for kind in ("png", "pdf")}
    tables = {f"{name}.{kind}" for name in names - {"ends"} | {"boundaries"} for kind in ("parquet", "csv")}
    assert set(found["files"]) == pictures | tables | {"atlas.json"}
    manifest = json.loads((out / "atlas.json").read_text(encoding="utf-8"))
    assert {key: manifest[key] for key in found} == found
    assert manifest["settings"]["beta_range"] == [0.01, 100.0]
    assert manifest["versions"]["numpy"] == np.__version__
    for name, columns in manifest["columns"].items():
        assert pl.read_parquet(out / f"{name}.parquet").columns == columns
        assert pl.read_csv(out / f"{name}.csv", infer_schema_length=None).columns == columns
    assert (out / "phase.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("blank")
def test_the_plane_is_the_package(tmp_path, answer):
    found = answer("atlas", *SMALL, "--beta-range", "0.5:20", "--p-ref-range", "1e-5:0.9", "--out", str(tmp_path))
    plane = pl.read_parquet(tmp_path / "phase.parquet")
    assert plane.height == 12 * 12
    assert [plane["beta"].min(), plane["beta"].max()] == pytest.approx([0.5, 20])
    assert [plane["p_ref"].min(), plane["p_ref"].max()] == pytest.approx([1e-5, 0.9])
    labels = regime(gd.grpo(plane["beta"].to_numpy(), plane["p_ref"].to_numpy())).label
    assert plane["regime"].to_list() == [Regime(int(label)).name for label in labels]
    shares = {entry["regime"]: entry["share"] for entry in found["regimes"]}
    assert sum(shares.values()) == pytest.approx(1)
    for label in Regime:
        assert shares[label.name.lower()] == pytest.approx(float(np.mean(labels == label)))
    lines = pl.read_parquet(tmp_path / "boundaries.parquet")
    assert set(lines["kind"]) == {"fold", "flip"}  # the cusp, at β = 60.9, is outside
    assert found["point"] is None
    assert "orbits_over_beta.png" not in found["files"]


@pytest.mark.usefixtures("blank")
@pytest.mark.parametrize(
    ("arguments", "system"),
    [
        ([], gd.grpo(0.2, 1e-6)),
        (["--group-size", "8"], gd.Recursion(0.2, 1e-6, gd.FiniteGroup(8))),
        (["--eps", "0"], gd.grpo(0.2, 1e-6, 0.0)),
        (["--variant", "two_kl", "--alpha", "0.5"], gd.two_kl(0.2, 1e-6, 0.5)),
        (["--variant", "dr_grpo"], gd.dr_grpo(0.2, 1e-6)),
        (["--variant", "mirror_grpo"], gd.mirror_grpo(0.2, 1e-6)),
    ],
)
def test_your_own_question(arguments, system, tmp_path, answer):
    point = ["--beta", "0.2", "--p-ref", "1e-6"]
    found = answer("atlas", *point, *arguments, *SMALL, "--out", str(tmp_path))["point"]
    label, end = regime(system), gd.limit(system)
    assert found["regime"] == Regime(int(label.label)).name.lower()
    assert found["reason"] == label.reason()
    assert found["end"]["kind"] == gd.LimitKind(int(end.kind)).name.lower()
    assert found["end"]["period"] == int(end.period)
    orbits = pl.read_parquet(tmp_path / "orbits_over_beta.parquet")
    assert orbits["p_ref"].to_numpy() == pytest.approx(1e-6)


@pytest.mark.usefixtures("blank")
def test_one_of_the_two_gives_one_orbit_diagram(tmp_path, answer):
    files = answer("atlas", "--beta", "5", *SMALL, "--out", str(tmp_path / "a"))["files"]
    assert "orbits_over_p_ref.png" in files
    assert "orbits_over_beta.png" not in files
    files = answer("atlas", "--p-ref", "0.1", *SMALL, "--out", str(tmp_path / "b"))["files"]
    assert "orbits_over_p_ref.png" not in files
    assert "orbits_over_beta.png" in files


@pytest.mark.usefixtures("blank")
@pytest.mark.parametrize(
    ("arguments", "beta_range", "p_ref_range"),
    [
        (["--beta", "0.001"], [0.001 / 3, 100.0], [1e-6, 0.9999]),
        (["--beta", "1000"], [0.01, 3000.0], [1e-6, 0.9999]),
        (["--p-ref", "1e-9"], [0.01, 100.0], [1e-9 / 3, 0.9999]),
        (["--p-ref", "0.99999"], [0.01, 100.0], [1e-6, 1 - 1e-5 / 3]),
        (["--beta", "1e308"], [0.01, 1e308], [1e-6, 0.9999]),
        (["--beta", "5e-324"], [5e-324, 100.0], [1e-6, 0.9999]),
        (["--p-ref", "5e-324"], [0.01, 100.0], [5e-324, 0.9999]),
    ],
)
def test_the_plane_is_wide_enough_for_your_own_question(arguments, beta_range, p_ref_range, tmp_path, answer):
    settings = answer("atlas", *arguments, *SMALL, "--out", str(tmp_path))["settings"]
    assert settings["beta_range"] == pytest.approx(beta_range)
    assert settings["p_ref_range"] == pytest.approx(p_ref_range)


def test_two_runs_write_the_same_pictures_and_tables(tmp_path, answer):
    for name in ("a", "b"):
        answer("atlas", "--beta", "2", "--p-ref", "0.01", *SMALL, "--out", str(tmp_path / name))
    for path in (tmp_path / "a").iterdir():
        if path.name != "atlas.json":  # has the folder and the seconds
            assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


@pytest.mark.usefixtures("blank")
def test_what_is_said(tmp_path, printed):
    text = printed("atlas", "--beta", "5", "--p-ref", "0.001", *SMALL, "--out", str(tmp_path))
    assert "grpo, ε = 1e-05 in the variance, exact statistics β from 0.01 to 100, p_ref from 1e-06 to 0.9999" in text
    assert "one_stable" in text
    assert "Cusp at β = 60.86: above it there is one fixed point for every p_ref." in text
    assert re.search(r"overshoot: for β from 0\.1\d+ to 60\.8\d?\.", text)
    assert "Your question: β = 5, p_ref = 0.001 regime oscillating why a cycle of period 2" in text
    assert "into a cycle of period 2 between 0.0023 and 0.0587" in text
    text = printed("atlas", "--variant", "dr_grpo", *SMALL, "--out", str(tmp_path))
    assert "one_stable 100.0 %" in text
    assert "Folds, where two fixed points are born, or vanish: none here." in text
    assert "Flips, where the low fixed point begins to overshoot: none here." in text
    assert "Your question" not in text


@pytest.mark.usefixtures("blank")
def test_an_option_without_effect_is_noted(tmp_path, capsys):
    assert main(["atlas", "--variant", "dr_grpo", "--eps", "1e-4", *SMALL, "--out", str(tmp_path)]) == 0
    assert (
        capsys.readouterr().err
        == "note: --eps has no effect: variant dr_grpo does not divide by a standard deviation\n"
    )


BAD = {
    "--size 9": ("size must be an integer from 10 to 2000", "9"),
    "--size 2001": ("size must be an integer from 10 to 2000", "2001"),
    "--size 1e2": ("size must be an integer from 10 to 2000", "'1e2'"),
    "--beta 0": ("beta must be a finite number > 0", "0.0"),
    "--beta nan": ("beta must be a finite number > 0", "nan"),
    "--p-ref 1": ("p_ref must be a probability strictly between 0 and 1", "1.0"),
    "--beta-range 1": ("beta_range must be LOW:HIGH with LOW < HIGH, each a finite number > 0", "'1'"),
    "--beta-range 1:1": ("beta_range must be LOW:HIGH with LOW < HIGH", "'1:1'"),
    "--beta-range 2:1": ("beta_range must be LOW:HIGH with LOW < HIGH", "'2:1'"),
    "--beta-range 0:1": ("beta_range must be LOW:HIGH with LOW < HIGH", "'0:1'"),
    "--beta-range 1:inf": ("beta_range must be LOW:HIGH with LOW < HIGH", "'1:inf'"),
    "--beta-range nan:1": ("beta_range must be LOW:HIGH with LOW < HIGH", "'nan:1'"),
    "--beta-range 1:2:3": ("beta_range must be LOW:HIGH with LOW < HIGH", "'1:2:3'"),
    "--beta-range a:b": ("beta_range must be LOW:HIGH with LOW < HIGH", "'a'"),
    "--p-ref-range 0.1:1": ("p_ref_range must be LOW:HIGH with LOW < HIGH, each a probability", "'0.1:1'"),
    "--beta 5 --beta-range 0.1:1": ("beta_range must be a range with your own beta 5 in it", "'0.1:1'"),
    "--p-ref .5 --p-ref-range 0.1:.2": ("p_ref_range must be a range with your own p_ref 0.5 in it", "'0.1:0.2'"),
    "--alpha 2": ("alpha must be between 0 and 1", "2.0"),
    "--alpha nan": ("alpha must be between 0 and 1", "nan"),
    "--eps -1": ("eps must be a finite number >= 0", "-1.0"),
    "--group-size 1": ("group_size must be an integer from 2 to 16384", "1"),
    "--ddof 1": ("ddof must be left out without --group-size", "1"),
    "--variant two_kl": ("alpha must be a number between 0 and 1", "nothing: add --alpha"),
    "--out ''": ("out must be a folder", "''"),
    "--out file": ("out must be a folder", "'file'"),
    "--out file/sub": ("out must be a place that can be written", "'file/sub'"),
}


@pytest.mark.parametrize("arguments", BAD)
def test_bad_input_is_one_line(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    words = [word.strip("'") for word in arguments.split()]
    assert main(["atlas", *SMALL, *words] if "--size" not in words else ["atlas", *words]) == 2
    out, err = capsys.readouterr()
    allowed, value = BAD[arguments]
    assert out == ""
    assert re.fullmatch(rf"error: {re.escape(allowed)}.*, got {re.escape(value)}\n", err)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_help_teaches(capsys):
    assert main(["atlas", "--help"]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    for word in ("β", "p_ref", "LOW:HIGH", "folds", "atlas.json", "grpo-dynamics atlas --beta 5"):
        assert word in text


def test_examples_in_the_help_are_commands(capsys, monkeypatch):
    from grpo_dynamics.cli import atlas

    ran = []
    monkeypatch.setattr(atlas, "draw_atlas", lambda *arguments: ran.append(arguments))
    main(["atlas", "--help"])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    commands = [words[1:] for words in lines if words[:1] == ["grpo-dynamics"]]
    for words in commands:
        assert main(words) == 0
    assert len(ran) == len(commands) >= 4
