"""The command of the explorer in the browser. What it needs, it imports itself."""

from pathlib import Path
from typing import Annotated

import typer

from grpo_dynamics.cli import options
from grpo_dynamics.cli.errors import choice, leave_out, number, path
from grpo_dynamics.cli.settings import BETA, Settings

KLS = ("exact", "k1", "k2", "k3", "k1_in_reward", "k1_times_ratio", "k3_times_ratio", "none")

Kl = Annotated[
    str | None,
    typer.Option(
        "--kl",
        metavar="NAME",
        help=f"Many small steps, as trainers take them, with this KL estimator: {', '.join(KLS)}. Default: exact "
        "steps, as in the paper.",
        rich_help_panel="Dynamics",
        parser=choice("kl", KLS),
    ),
]
Beta = Annotated[
    float | None,
    typer.Option(
        "--beta",
        metavar="β",
        help="KL strength, any number > 0.",
        rich_help_panel="Dynamics",
        parser=number("beta", BETA),
    ),
]
Out = Annotated[
    Path,
    typer.Option(
        "--out",
        metavar="FILE",
        help="Where to write the page, a file name that ends in .html.",
        rich_help_panel="Output",
        parser=path("out", "a file name that ends in .html"),
    ),
]
Browser = Annotated[
    bool,
    typer.Option("--browser/--no-browser", help="Open the page, or write it only.", rich_help_panel="Output"),
]


def explore_command(
    beta: Beta = None,
    p_ref: options.PRef = None,
    p0: options.P0 = None,
    variant: options.Variant = "grpo",
    alpha: options.Alpha = None,
    eps: options.Eps = None,
    eps_placement: options.EpsPlacement = None,
    group_size: options.GroupSize = None,
    ddof: options.Ddof = None,
    silent_groups: options.SilentGroups = None,
    kl: Kl = None,
    trainer: options.Trainer = None,
    trainer_version: options.TrainerVersion = None,
    trainer_set: options.TrainerSet = None,
    out: Out = Path("grpo-explorer.html"),
    browser: Browser = True,
    as_json: options.Json = False,
) -> None:
    """Turn the knobs in the browser: what every β does to a question.

    Writes one HTML page and opens it. Sliders for β, p_ref, ε, G and the
    rest; where p goes, in a sentence; the cobweb, the path, the map of all
    β and p_ref with a mark on yours, and the fixed points. The page needs
    no network and no server, and its address holds the settings: send the
    file, or put it on a web page and send the link.

    The options are what the page opens with; none has to be given, not
    even β (then 1) and p_ref (then 0.2). On the page G goes up to 1024.

    Examples:
      grpo-dynamics explore
      grpo-dynamics explore --beta 5 --p-ref 0.001
      grpo-dynamics explore --trainer trl --beta 0.04 --p-ref 0.1
      grpo-dynamics explore --kl k3 --group-size 8 --no-browser
    """
    from grpo_dynamics.cli.explore import explore, own_state, trainer_state

    if trainer is not None:
        own = {"alpha": alpha, "eps": eps, "eps_placement": eps_placement, "ddof": ddof, "silent_groups": silent_groups}
        leave_out("with --trainer", variant=None if variant == "grpo" else variant, kl=kl, **own)
        state = trainer_state(trainer, trainer_version, beta, group_size, trainer_set or [], p_ref, p0)
    else:
        leave_out("without --trainer", trainer_version=trainer_version, set=" ".join(trainer_set or []) or None)
        settings = Settings(variant, alpha, eps, eps_placement, group_size, ddof, silent_groups)
        state = own_state(settings, beta, p_ref, p0, kl)
    explore(state, out, browser, as_json)
