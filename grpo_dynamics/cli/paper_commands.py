"""The commands of the paper: ``figures``, ``reproduce``, ``claims``. What each needs, it imports itself."""

from pathlib import Path
from typing import Annotated

import typer

from grpo_dynamics.cli import options


def figures_command(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME", help="Which; all if none is named.")] = None,
    out: options.Folder = Path("figures"),
    list_names: Annotated[bool, typer.Option("--list", help="Print the names and stop.")] = False,
    as_json: options.Json = False,
) -> None:
    """Draw the figures and tables of arXiv 2503.06639: PNG and PDF, with their data as parquet and CSV.

    Examples:
      grpo-dynamics figures --list
      grpo-dynamics figures --out figures
      grpo-dynamics figures figure5 table1 --out figures
    """
    from grpo_dynamics.cli.paper import draw_figures, list_figures

    if list_names:
        list_figures(as_json)
    else:
        draw_figures(names or [], out, as_json)


def reproduce_command(
    out: options.Folder = Path("reproduction"),
    training: Annotated[
        bool, typer.Option("--training/--no-training", help="Whether to train the small model, which takes minutes.")
    ] = True,
    as_json: options.Json = False,
) -> int:
    """Reproduce the paper: its figures, its numbers, and its dynamics by training.

    Writes the figures and one HTML page with all of them that opens from
    disk, and prints a table of quantity, paper, ours, difference and
    verdict. Where the paper's own pictures and captions disagree, a row says
    so. At the end a small language model is made and trained with GRPO, and
    the success probabilities that it measures are laid over the predicted
    ones; called again after a kill, that goes on where it stopped. It needs
    the extra train. The exit code is 1 if a number differs that should not,
    or the training run misses what its config promises.

    Examples:
      grpo-dynamics reproduce --out reproduction
      grpo-dynamics reproduce --out reproduction --no-training
    """
    from grpo_dynamics.cli.paper import reproduce_paper

    return reproduce_paper(out, as_json, training)


def claims_command(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="ID", help="Which, with all their checks; all in a table if none.")
    ] = None,
    kinds: Annotated[
        list[str] | None,
        typer.Option(
            "--kind",
            metavar="KIND",
            help="Only those: proved, certified, tested, computed, measured, read, read_off, papers or setting; "
            "repeatable.",
        ),
    ] = None,
    prove: Annotated[bool, typer.Option("--prove", help="Run the proofs of what is listed; all: a minute.")] = False,
    as_json: options.Json = False,
) -> int:
    """List every claim of the paper and of ours, how it is checked, and the errors found.

    A claim is proved (by computer algebra, step by step), certified on a box
    (by interval arithmetic), tested, computed again, or measured by training a
    language model; what was read in the source or off a picture and what the
    paper measured say so. The numbers are
    computed now, the proofs with --prove; the tests run from a checkout by
    `make test`. The exit code is 1 if something that was run fails.

    Examples:
      grpo-dynamics claims
      grpo-dynamics claims thm3 error-figure2-eps
      grpo-dynamics claims --kind certified --json
    """
    from grpo_dynamics.cli.claims import print_claims

    return print_claims(names or [], kinds or [], prove, as_json)
