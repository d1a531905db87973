"""Small sweeps, and an undisturbed one to compare with."""

from __future__ import annotations

import pytest

CONFIG = """
kind = "simulate"
[base]
steps = {steps}
questions.p_ref = [0.05, 0.2]
training.update = "sampled"
training.group_size = 8
training.learning_rate = 0.1
[axes]
training.beta = [0.5, 1.0, 2]
seed = [0, 1]
"""


@pytest.fixture
def config(tmp_path):
    """Write a config of six simulations of so many sampled steps; return its path."""

    def write(steps: int = 5, text: str = CONFIG):
        path = tmp_path / "small.toml"
        path.write_text(text.format(steps=steps))
        return path

    return write
