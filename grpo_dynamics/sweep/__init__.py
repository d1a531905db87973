"""Sweeps: many runs, simulations or phase diagrams from one config, over the cores of a machine or of a cluster.

A sweep is a list of tasks. Each has an id, the digest of its own config, and leaves one table that is never changed
again; what a table holds depends on its config alone, not on the engine, the order or the number of workers.
"""

from grpo_dynamics.sweep.perform import Options, perform
from grpo_dynamics.sweep.plan import Sweep, SweepTask, read_sweep
from grpo_dynamics.sweep.results import gather

__all__ = ["Options", "Sweep", "SweepTask", "gather", "perform", "read_sweep"]
