"""`grpo-dynamics simulate`: a config in; a table, a picture and a manifest out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from grpo_dynamics import __version__
from grpo_dynamics.cli.errors import bad_input, missing, refuse
from grpo_dynamics.cli.output import brief, print_json, progress, screen, table
from grpo_dynamics.cli.paper import folder

if TYPE_CHECKING:
    import polars as pl


def list_all(as_json: bool) -> None:
    """Print the names of all experiments and where their configs are."""
    from grpo_dynamics.simulation import experiments

    titles = {name: str(experiments.experiment(name).TITLE) for name in experiments.names()[1:]}
    if as_json:
        entries = [{"name": n, "title": t, "config": str(experiments.config_file(n))} for n, t in titles.items()]
        print_json({"command": "simulate", "version": __version__, "available": entries})
        return
    screen().print(table("Experiments", ("name", "what it shows"), list(titles.items()), left=(0, 1)))


def run_config(config: str | None, out: Path, resume: bool, as_json: bool) -> None:
    """Run a config, or go on with it; write its results and print what they come to."""
    if config is None:
        missing("config", "a TOML file or the name of an experiment")
    if not config:
        refuse("config", "a TOML file or the name of an experiment", config)
    from grpo_dynamics.plotting import save
    from grpo_dynamics.simulation import experiments
    from grpo_dynamics.simulation.runs import perform

    with bad_input():
        read = experiments.read_config(config)
        run = read.run(out)
    module = experiments.experiment(read.experiment)
    with folder(out), progress() as tell, bad_input():
        try:
            found, manifest = perform(run, resume, tell)
        except FloatingPointError as error:
            refuse("learning_rate", "so small that the policy stays finite", str(error))
        pictures = save(module.draw(found), out / run.name)
    ends = module.summary(found)
    files = [str(path) for path in (run.table, run.manifest, *pictures)]
    if as_json:
        answer = {"command": "simulate", "version": __version__, "experiment": read.experiment, "title": module.TITLE}
        answer |= {key: manifest[key] for key in ("name", "config", "seconds", "parts", "parts_from_checkpoint")}
        print_json({**answer, "out": str(out), "files": files, "summary": ends.to_dicts()})
        return
    show(module.TITLE, ends)
    print(f"\n{found.height} rows in {manifest['seconds']:.1f} s. In {out}:")
    print(f"{run.name}{', '.join(Path(file).suffix for file in files)}")


def show(title: str, ends: pl.DataFrame) -> None:
    """Print the summary as a table."""
    words = [i for i, kind in enumerate(ends.dtypes) if not kind.is_numeric()]
    rows = [[_text(value) for value in row] for row in ends.iter_rows()]
    screen().print(table(title, [name.replace("_", " ") for name in ends.columns], rows, left=words))


def _text(value: Any) -> str:
    if value is None or value != value:
        return "–"
    return brief(value) if isinstance(value, float) else str(value)
