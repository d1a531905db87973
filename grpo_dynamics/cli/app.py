"""The command line: ``grpo-dynamics predict | design | figures | reproduce | claims``.

Start-up imports NumPy, the theory and the command-line library only; whatever a command needs, it imports itself.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from grpo_dynamics import __version__
from grpo_dynamics.cli import options as options
from grpo_dynamics.cli.errors import BadInput, leave_out, refuse
from grpo_dynamics.cli.output import print_notes
from grpo_dynamics.cli.settings import Settings


class Commands(TyperGroup):
    """The commands, in the order of this file."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            refuse("command", f"one of {', '.join(self.commands)}", args[0])
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=Commands,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"grpo-dynamics {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def start(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Where GRPO with verifiable rewards takes the success probability of each question.

    p is the probability that a policy answers a question correctly, p_ref
    that of the reference policy, β > 0 the strength of the KL term to it.
    GRPO drives p to a fixed point p* > p_ref, or around it: these commands
    say where, how fast, and for which β.

    Examples:
      grpo-dynamics predict --beta 1 --p-ref 0.2
      grpo-dynamics predict --beta 0.04 --group-size 8 --from questions.csv
      grpo-dynamics design --target 0.6 --p-ref 0.2
      grpo-dynamics reproduce --out reproduction
      grpo-dynamics claims

    The mathematics is that of arXiv 2503.06639. Each command has its own --help.
    """
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command("predict")
def predict_command(
    beta: options.Beta = None,
    p_ref: options.PRef = None,
    p0: options.P0 = None,
    variant: options.Variant = "grpo",
    alpha: options.Alpha = None,
    eps: options.Eps = None,
    eps_placement: options.EpsPlacement = None,
    group_size: options.GroupSize = None,
    ddof: options.Ddof = None,
    silent_groups: options.SilentGroups = None,
    steps: options.Steps = 50,
    source: options.From = None,
    out: options.Out = None,
    id_column: options.IdColumn = None,
    rate_column: options.RateColumn = None,
    successes_column: options.SuccessesColumn = None,
    samples_column: options.SamplesColumn = None,
    confidence: options.Confidence = 0.95,
    plot: options.Plot = None,
    as_json: options.Json = False,
) -> None:
    """Predict where GRPO takes the success probability of one question, or of all in a file.

    In log-odds L = log(p/(1−p)) one iteration of training is
      L_n = α·L_ref + (1−α)·L_(n−1) + Ω(p_(n−1))/β
    with the advantage gap Ω, in GRPO 1/√(p(1−p)+ε), and α = 1. Printed are
    all fixed points p* with their multipliers, by which a step changes a
    small distance (stable if below 1 in size); where the orbit from p_0 goes
    and how fast; and which β amplify, and are stable.

    Examples:
      grpo-dynamics predict --beta 1 --p-ref 0.2
      grpo-dynamics predict --beta 5 --p-ref 0.001 --plot cycle.png
      grpo-dynamics predict --beta 0.04 --p-ref 0.2 --group-size 8 --json
      grpo-dynamics predict --beta 1 --p-ref 0.2 --variant two_kl --alpha 0.5

    With --from FILE (.csv, .jsonl or .parquet) every row is a question: an
    id, and a success rate or the numbers of successes and of samples. The
    number of samples gives Wilson's interval on p_ref, and the smallest and
    largest p* over all of it. Every question starts at its own p_ref.
      grpo-dynamics predict --beta 0.5 --from questions.csv
      grpo-dynamics predict --beta 0.5 --from questions.csv --out p.jsonl
    """
    settings = Settings(variant, alpha, eps, eps_placement, group_size, ddof, silent_groups)
    columns = {
        "id_column": id_column,
        "rate_column": rate_column,
        "successes_column": successes_column,
        "samples_column": samples_column,
    }
    if source is None:
        leave_out("without --from", out=out, **columns)
        from grpo_dynamics.cli.predict import predict_one

        predict_one(settings, beta, p_ref, p0, steps, plot, as_json)
    else:
        leave_out("with --from", p_ref=p_ref, p0=p0, plot=plot)
        from grpo_dynamics.cli.questions import predict_file

        predict_file(settings, beta, steps, source, out, columns, confidence, as_json)
    print_notes(settings.notes())


@app.command("design")
def design_command(
    target: options.Target = None,
    p_ref: options.PRef = None,
    p0: options.P0 = None,
    variant: options.Variant = "grpo",
    alpha: options.Alpha = None,
    eps: options.Eps = None,
    eps_placement: options.EpsPlacement = None,
    group_size: options.GroupSize = None,
    ddof: options.Ddof = None,
    silent_groups: options.SilentGroups = None,
    as_json: options.Json = False,
) -> None:
    """Find the KL strength β that takes a question to a target success probability.

    Exactly one β makes a target p* > p_ref a fixed point:
      β = Ω(p*) / (α·(logit p* − logit p_ref))
    Whether training stays there is another question: the fixed point can be
    unstable, or the orbit from p_0 can go elsewhere. Then the nearest targets
    that are reached are printed, with their β.

    Examples:
      grpo-dynamics design --target 0.6 --p-ref 0.2
      grpo-dynamics design --target 0.9 --p-ref 0.2
      grpo-dynamics design --target 0.9 --p-ref 0.2 --group-size 8
      grpo-dynamics design --target 0.5 --p-ref 0.05 --json
    """
    from grpo_dynamics.cli.design import design_one

    settings = Settings(variant, alpha, eps, eps_placement, group_size, ddof, silent_groups)
    design_one(settings, target, p_ref, p0, as_json)
    print_notes(settings.notes())


@app.command("figures")
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


@app.command("reproduce")
def reproduce_command(
    out: options.Folder = Path("reproduction"),
    as_json: options.Json = False,
) -> int:
    """Reproduce the paper: every figure, and every printed number beside ours.

    Writes the figures and one HTML page with all of them that opens from
    disk, and prints a table of quantity, paper, ours, difference and
    verdict. Where the paper's own pictures and captions disagree, a row says
    so. The exit code is 1 if a number differs that should not.

    Example:
      grpo-dynamics reproduce --out reproduction
    """
    from grpo_dynamics.cli.paper import reproduce_paper

    return reproduce_paper(out, as_json)


@app.command("claims")
def claims_command(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="ID", help="Which, with all their checks; all in a table if none.")
    ] = None,
    kinds: Annotated[
        list[str] | None,
        typer.Option(
            "--kind",
            metavar="KIND",
            help="Only those: proved, certified, tested, computed, read, read_off, measured or setting; repeatable.",
        ),
    ] = None,
    prove: Annotated[bool, typer.Option("--prove", help="Run the proofs of what is listed; all: a minute.")] = False,
    as_json: options.Json = False,
) -> int:
    """List every claim of the paper and of ours, how it is checked, and the errors found.

    A claim is proved (by computer algebra, step by step), certified on a box
    (by interval arithmetic), tested, or computed again; what was read in the
    source or off a picture and what the paper measured say so. The numbers are
    computed now, the proofs with --prove; the tests run from a checkout by
    `make test`. The exit code is 1 if something that was run fails.

    Examples:
      grpo-dynamics claims
      grpo-dynamics claims thm3 error-figure2-eps
      grpo-dynamics claims --kind certified --json
    """
    from grpo_dynamics.cli.claims import print_claims

    return print_claims(names or [], kinds or [], prove, as_json)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0, 2 for bad input (one line on the standard error), 130 for Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # β on a terminal that has only ASCII
    arguments = sys.argv[1:] if argv is None else list(argv)
    try:
        code = typer.main.get_command(app).main(arguments, prog_name="grpo-dynamics", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except BadInput as error:
        message = str(error)
    except typer.TyperException as error:
        message = usage_message(error)
    except (KeyboardInterrupt, typer.Abort):
        return 130
    print("error:", " ".join(message.split()), file=sys.stderr)
    return 2


def usage_message(error: typer.TyperException) -> str:
    """Return what is wrong with the arguments themselves, in the form of every error."""
    context: Any = getattr(error, "ctx", None)
    allowed = f"as `{context.command_path if context else 'grpo-dynamics'} --help` says"
    message, unknown = error.format_message(), getattr(error, "option_name", None)
    if "requires an argument" in message:
        return f"{unknown} must be followed by a value, got nothing"
    if not hasattr(error, "possibilities"):
        return f"arguments must be {allowed}, got: {message}"
    near: Any = getattr(error, "possibilities", None)
    return f"option must be {allowed}{f' (such as {near[0]})' if near else ''}, got {unknown!r}"
