"""The command line, `grpo-dynamics`: one file per command, on top of everything else."""

from grpo_dynamics.cli.app import main

__all__ = ["main"]
