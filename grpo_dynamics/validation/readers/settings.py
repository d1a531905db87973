"""A trainer's own settings, from the file in which it keeps them: which theory its run is compared with."""

from __future__ import annotations

import dataclasses
import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from grpo_dynamics.theory.trainers import preset, trainer
from grpo_dynamics.theory.trainers.preset import Preset, Trainer, nearest, numbers
from grpo_dynamics.validation.readers.ignored import ALIASES, IGNORED, IGNORED_BELOW
from grpo_dynamics.validation.readers.samples import Notes, shown

NAMES = ("training_args", "grpo_config", "trainer_config", "args")
"""Names of files beside a dump that are taken for settings, with the endings .json, .yaml, .yml and .toml."""

BESIDE = (
    *(f"{name}{ending}" for name in NAMES for ending in (".json", ".yaml", ".yml", ".toml")),
    *("config.yaml", ".hydra/config.yaml", "wandb/latest-run/files/config.yaml"),
)
"""Where settings are looked for, the first counts. A config.json is the model's, a training_args.bin a pickle: neither
is read."""


NUMBERS = (
    *("num_iterations", "gradient_accumulation_steps", "steps_per_generation"),
    *("eval_steps", "logging_steps", "max_steps", "eval_delay", "verification_reward"),
)
"""Options that readers calculate with."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """A trainer's options by its own names, and where they were found.

    Attributes:
        options: those that are known to the preset.
        others: the rest, of which none decides where training goes.
        version: of the trainer; None if not said.
        where: for the report; None if nothing was found.
    """

    options: Mapping[str, Any]
    others: Mapping[str, Any] = dataclasses.field(default_factory=dict[str, Any])
    version: str | None = None
    where: str | None = None


def find_settings(folders: Sequence[Path]) -> Path | None:
    """Return the first file of settings that lies in one of the folders, or above it for a run's outputs."""
    for folder in folders:
        for name in BESIDE:
            if (folder / name).is_file():
                return folder / name
        runs = sorted(folder.glob("wandb/run-*/files/config.yaml"))
        if len(runs) == 1:
            return runs[0]
    return None


def read_settings(name: str, path: Path, version: str | None = None) -> Settings:
    """Return a trainer's options from a file: JSON, YAML, TOML; as Weights & Biases, or Hydra, keeps them.

    Args:
        name: of the trainer.
        path: the file.
        version: of the trainer, None for the newest that is known.

    Raises:
        ValueError: for a file that cannot be read, or options that nobody knows, with the nearest.
    """
    found = preset(name)
    known = found.version(version)
    flat, by_machine = _flat(_read(path), any("." in option for option in found.defaults((10**6,))))
    options: dict[str, Any] = {}
    others: dict[str, Any] = {}
    unknown: list[str] = []
    for key, value in flat.items():
        key = ALIASES.get(found.name, {}).get(key, key)
        try:
            full = found.full_name(known, key)
        except ValueError:
            if not by_machine and not _is_ignored(found, key):
                unknown.append(key)
            others[key] = _number(value) if key in NUMBERS else value
            continue
        if value is not None:
            options[full] = _number(value)
    if unknown:
        names = (*found.defaults(tuple(map(int, known.split(".")))), *found.other, *IGNORED.get(found.name, ()))
        first = f"{unknown[0]!r}{nearest(unknown[0], names)}"
        more = f" (and {shown(unknown[1:], 5)})" if unknown[1:] else ""
        raise ValueError(f"config must have options that {found.title} has, got {first}{more} in {path}")
    return Settings(_tidy(options), others, None, str(path))


def require_numbers(name: str, known: Mapping[str, Any], given: Mapping[str, Any], where: str | None) -> None:
    """Raise ValueError where a trainer's option has to be a number and is none.

    Args:
        name: of the trainer.
        known: its options, those of the user over those of a file.
        given: those of the user, whose names may be shortened.
        where: the file of the others.
    """
    found = preset(name)
    defaults = found.defaults(numbers(found.versions[-1]))
    needed = [key for key, value in defaults.items() if type(value) in (int, float)]
    for key in dict.fromkeys((*needed, *NUMBERS)):
        short = next((own for own in given if key == own or key.endswith(f".{own}")), None)
        value = known.get(key if short is None else short)
        if value is not None and not (isinstance(value, int | float) and math.isfinite(value)):
            place = f" in {where}" if short is None and where else ""
            raise ValueError(f"{key} must be a number, got {value!r}{place}")


def _is_ignored(found: Preset, key: str) -> bool:
    """Whether an option is known to have no part in the prediction."""
    below = IGNORED_BELOW.get(found.name, ())
    return key in IGNORED.get(found.name, ()) or any(key == top or key.startswith(f"{top}.") for top in below)


def _tidy(options: dict[str, Any]) -> dict[str, Any]:
    """Without steps_per_generation where it is what it would be anyway."""
    own = options.get("steps_per_generation")
    if own is not None and own == options.get("gradient_accumulation_steps", 1):
        return {name: value for name, value in options.items() if name != "steps_per_generation"}
    return options


def trainer_of(name: str, settings: Settings, given: Mapping[str, Any], version: str | None, notes: Notes) -> Trainer:
    """Return the trainer with its settings, over which those lie that the user gives.

    Raises:
        ValueError: where β is not known, and for options the preset refuses.
    """
    found = preset(name)
    version = version or settings.version
    known = found.version(version)
    given = {found.full_name(known, key) if key != "reward_scale" else key: value for key, value in given.items()}
    options = {**settings.options, **given}
    example = _name_of_beta(found)
    if settings.where is None and not given and example is not None:
        raise ValueError(
            f"config must be a file with the settings of {found.title}, got none beside the dump (looked for "
            f"{shown(BESIDE[:2])}, config.yaml, .hydra/config.yaml and others): add --config, or --set {example}=..."
        )
    if version is None:
        notes.add("version", f"The version of {found.title} is not known: it is read as {known} (--trainer-version)")
    return trainer(name, known, **options)


def _name_of_beta(found: Preset) -> str | None:
    """What a trainer calls its β, None where it has no KL term."""
    try:
        return next((name for name, value in found.shorthand(0.04, None).items() if value == 0.04), None)
    except ValueError:
        return None


def _read(path: Path) -> Any:
    """Whatever a file of settings holds."""
    kind = path.suffix.lower()
    if kind not in (".json", ".yaml", ".yml", ".toml"):
        raise ValueError(f"config must be a file that ends in .json, .yaml, .yml or .toml, got {str(path)!r}")
    try:
        text = path.read_text(encoding="utf-8")
        if kind == ".json":
            return json.loads(text)
        return tomllib.loads(text) if kind == ".toml" else _yaml(text)
    except FileNotFoundError:
        raise ValueError(f"config must be a file that exists, got {str(path)!r}") from None
    except OSError as error:
        raise ValueError(f"config must be a file that can be read ({error.strerror}), got {str(path)!r}") from None
    except (ValueError, RecursionError) as error:
        if "pyyaml" in str(error):
            raise
        raise ValueError(
            f"config must be {kind[1:].upper()}, got {str(path)!r}: {str(error).splitlines()[0]}"
        ) from None


def _yaml(text: str) -> Any:
    try:
        import yaml
    except ImportError:
        raise ValueError("config in YAML needs pyyaml: pip install pyyaml, or give JSON or TOML") from None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None


def _flat(found: Any, levels: bool) -> tuple[dict[str, Any], bool]:
    """Options, with dots for the levels, and whether a machine wrote them all, so that unknown ones are no mistake.

    >>> _flat({"beta": {"value": 0.1}, "_wandb": {"value": {}}}, False)
    ({'beta': 0.1}, True)
    >>> _flat(["algorithm.adv_estimator=grpo", "+x.y=1"], True)
    ({'algorithm.adv_estimator': 'grpo', 'x.y': '1'}, False)
    """
    if isinstance(found, list) and all(isinstance(line, str) and "=" in line for line in found):  # pyright: ignore
        lines: list[str] = found
        pairs = (line.lstrip("+~").partition("=") for line in lines)
        return {name: value for name, _, value in pairs}, False
    if not isinstance(found, dict):
        raise ValueError(f"config must have names and values, got {type(found).__name__}")
    table: dict[str, Any] = found
    values = [value for name, value in table.items() if not str(name).startswith(("_", "wandb"))]
    if values and all(isinstance(value, dict) and "value" in value for value in values):
        table = {name: value["value"] for name, value in table.items() if not str(name).startswith(("_", "wandb"))}
        return (_below(table) if levels else table), True
    whole = {"actor_rollout_ref", "algorithm", "trainer", "data"} <= set(table)  # as Hydra composes and checks it
    return (_below(table) if levels else table), whole


def _below(table: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in table.items():
        if isinstance(value, dict) and value:
            flat |= _below(value, f"{above}{name}.")  # pyright: ignore[reportUnknownArgumentType]
        else:
            flat[f"{above}{name}"] = value
    return flat


def _number(value: Any) -> Any:
    """A text that is a number, as YAML 1.1 reads 1e-6, or true or false, as overrides have them."""
    if not isinstance(value, str):
        return value
    words = {"true": True, "false": False}
    if value.lower() in words:
        return words[value.lower()]
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value
