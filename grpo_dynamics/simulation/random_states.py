"""The state of a random generator as plain data: a simulation that was stopped goes on with the same numbers."""

from __future__ import annotations

from typing import Any

import numpy as np


def random_state(random: Any) -> Any:
    """Return the state of a NumPy or torch generator in what JSON can hold; None for None.

    >>> kept = random_state(np.random.default_rng(0))
    >>> again = np.random.default_rng(1)
    >>> set_random_state(again, kept)
    >>> print(again.integers(10), np.random.default_rng(0).integers(10))
    8 8
    """
    if random is None:
        return None
    return random.bit_generator.state if isinstance(random, np.random.Generator) else random.get_state().tolist()


def set_random_state(random: Any, state: Any) -> None:
    """Set a generator to a state of :func:`random_state`; nothing to do where there is no generator.

    Raises:
        ValueError: for a state of another kind of generator, or none.
    """
    if random is None:
        return
    try:
        if isinstance(random, np.random.Generator):
            random.bit_generator.state = state
        else:
            import torch  # the generator is torch's, so it is there

            random.set_state(torch.tensor(state, dtype=torch.uint8))
    except (TypeError, ValueError, RuntimeError, KeyError):
        raise ValueError("state must come from a sampled simulation of the same array library") from None
