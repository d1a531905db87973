"""A trainer's own settings: where they are found, in which forms, and what is refused in them."""

import json

import pytest

import grpo_dynamics as gd
from grpo_dynamics.theory.trainers import PRESETS
from grpo_dynamics.validation.readers import read_dump
from grpo_dynamics.validation.readers.samples import Notes
from grpo_dynamics.validation.readers.settings import Settings, find_settings, read_settings, trainer_of
from grpo_dynamics.validation.readers.theory import config_of_trainer, theory_of_trainer
from grpo_dynamics.validation.theory_of_run import training_of


def written(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text if isinstance(text, str) else json.dumps(text))
    return path


@pytest.mark.parametrize("form", ["json", "toml", "yaml", "wandb"])
def test_one_setting_in_every_form(form, tmp_path):
    options = {"beta": 0.2, "num_generations": 8, "learning_rate": 1e-6, "logging_steps": 5, "delta": None}
    if form in ("yaml", "wandb"):
        pytest.importorskip("yaml", reason="YAML files need pyyaml")
    texts = {
        "json": ("a.json", json.dumps(options)),
        "toml": ("a.toml", "beta = 0.2\nnum_generations = 8\nlearning_rate = 1e-6\nlogging_steps = 5\n"),
        # YAML 1.1 takes 1e-6 for a text, so a number is made of it
        "yaml": ("a.yaml", "beta: 2e-1\nnum_generations: 8\nlearning_rate: 1e-6\nlogging_steps: 5\ndelta: null\n"),
        "wandb": (
            "config.yaml",
            "_wandb:\n  value: {}\n" + "".join(f"{k}:\n  value: {json.dumps(v)}\n" for k, v in options.items()),
        ),
    }
    name, text = texts[form]
    found = read_settings("trl", written(tmp_path / name, text))
    assert found.options == {"beta": 0.2, "num_generations": 8, "learning_rate": 1e-6}


def test_overrides_and_shortened_names_of_verl(tmp_path):
    pytest.importorskip("yaml", reason="YAML files need pyyaml")
    text = (
        "- algorithm.adv_estimator=grpo\n- ++actor_rollout_ref.actor.use_kl_loss=True\n- data.train_files=x.parquet\n"
    )
    found = read_settings("verl", written(tmp_path / "overrides.yaml", text))
    assert found.options == {"algorithm.adv_estimator": "grpo", "actor_rollout_ref.actor.use_kl_loss": True}


def test_unknown_options_are_named_with_the_nearest(tmp_path):
    file = written(tmp_path / "a.json", {"beta": 0.1, "num_generatons": 4, "bogus_thing": 1, "seed": 3})
    expected = "got 'num_generatons'; the nearest is 'num_generations' .and bogus_thing. in "
    with pytest.raises(ValueError, match=rf"^config must have options that TRL GRPOTrainer has, {expected}"):
        read_settings("trl", file)
    nested = {"actor_rollout_ref": {"actor": {"kl_loss_coeff": 0.1}}, "data": {"anything": 1}}
    with pytest.raises(ValueError, match=r"'actor_rollout_ref.actor.kl_loss_coeff'; the nearest is .*kl_loss_coef'"):
        read_settings("verl", written(tmp_path / "v.json", nested))


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.json", '{"beta": 0.04,', "config must be JSON, got .*a.json': Expecting property name"),
        ("a.json", "[1]", "config must have names and values, got list"),
        ("a.json", '"beta"', "config must have names and values, got str"),
        ("a.toml", "beta = ", "config must be TOML, got .*a.toml': "),
        ("a.yaml", "a: [1", "config must be YAML, got .*a.yaml': "),
        ("a.bin", "", "config must be a file that ends in .json, .yaml, .yml or .toml"),
    ],
)
def test_files_that_are_no_settings(name, text, said, tmp_path):
    pytest.importorskip("yaml", reason="YAML files need pyyaml")
    with pytest.raises(ValueError, match=said):
        read_settings("trl", written(tmp_path / name, text))


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(ValueError, match=r"config must be a file that exists"):
        read_settings("trl", tmp_path / "a.json")
    (tmp_path / "b.json").mkdir()
    with pytest.raises(ValueError, match=r"config must be a file that can be read"):
        read_settings("trl", tmp_path / "b.json")


def test_without_settings_nothing_is_assumed(tmp_path):
    """TRL's β is 0 by default: a prediction of p = 1 that nobody asked for."""
    written(tmp_path / "t.csv", "iteration,question_id,success\n0,a,1\n1,a,0\n")
    with pytest.raises(
        ValueError, match=r"config must be a file with the settings of TRL GRPOTrainer, got none beside"
    ):
        read_dump("generic", tmp_path / "t.csv", trainer="trl")


def test_the_model_and_pickles_are_never_taken_for_settings(tmp_path):
    written(tmp_path / "config.json", {"hidden_size": 64})
    (tmp_path / "training_args.bin").write_bytes(b"\x80\x04")
    assert find_settings((tmp_path,)) is None
    file = written(tmp_path / "wandb" / "run-1" / "files" / "config.yaml", "")
    assert find_settings((tmp_path,)) == file
    file = written(tmp_path / "training_args.json", {})
    assert find_settings((tmp_path,)) == file


def test_steps_per_generation_as_it_would_be_anyway_says_nothing(tmp_path):
    same = {"beta": 0.1, "gradient_accumulation_steps": 4, "steps_per_generation": 4}
    found = read_settings("trl", written(tmp_path / "a.json", same))
    assert "steps_per_generation" not in found.options
    found = read_settings("trl", written(tmp_path / "b.json", same | {"steps_per_generation": 8}))
    assert found.options["steps_per_generation"] == 8


def test_a_reference_that_moves_is_said(tmp_path):
    file = written(tmp_path / "a.json", {"beta": 0.1, "ref_policy_update_freq": 10})
    settings = read_settings("open-instruct", file)
    theory = theory_of_trainer(trainer_of("open-instruct", settings, {}, None, Notes()), settings)
    assert "ref_policy_update_freq = 10: the reference moves, and with it p_ref." in theory.not_modelled


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_a_theory_and_a_config(name):
    """The theory is the trainer's flow; the config is one that the comparison understands."""
    own = {} if name in ("prime-rl", "open-reasoner-zero") else PRESETS[name].shorthand(0.1, 4)  # they have no β
    found = gd.trainer(name, **own)
    settings = Settings({})
    theory = theory_of_trainer(found, settings)
    assert theory.at(0.3).rate(0.5) == pytest.approx(found.at(0.3).rate(0.5), rel=1e-12)
    assert not theory.has_orbits
    training = training_of(config_of_trainer(found, settings, 4))
    assert training.update == "sampled"
    assert training.size >= 2
