"""The command line: ``grpo-dynamics COMMAND``; the commands are the functions of the modules ``*_commands``.

Start-up imports NumPy, the theory and the command-line library only; whatever a command needs, it imports itself.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from grpo_dynamics import __version__
from grpo_dynamics.cli import (
    advice_commands,
    explorer_commands,
    paper_commands,
    simulation_commands,
    sweep_commands,
    theory_commands,
    training_commands,
)
from grpo_dynamics.cli.errors import BadInput, refuse


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
      grpo-dynamics which-kl --trainer trl --beta 0.04
      grpo-dynamics atlas --beta 0.04 --p-ref 0.2 --group-size 8
      grpo-dynamics simulate --list
      grpo-dynamics reproduce --out reproduction
      grpo-dynamics claims

    The mathematics is that of arXiv 2503.06639. Each command has its own --help.
    """
    if context.invoked_subcommand is None:
        print(context.get_help())


COMMANDS = {
    "predict": theory_commands.predict_command,
    "which-kl": theory_commands.which_kl_command,
    "design": theory_commands.design_command,
    "atlas": theory_commands.atlas_command,
    "explore": explorer_commands.explore_command,
    "advise": advice_commands.advise_command,
    "simulate": simulation_commands.simulate_command,
    "make-model": training_commands.make_model_command,
    "run": training_commands.run_command,
    "validate": training_commands.validate_command,
    "sweep": sweep_commands.sweep_command,
    "figures": paper_commands.figures_command,
    "reproduce": paper_commands.reproduce_command,
    "claims": paper_commands.claims_command,
}

for _name, _command in COMMANDS.items():
    app.command(_name)(_command)


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
