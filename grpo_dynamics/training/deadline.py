"""A limit on how long a command may take: long work asks on its way whether there is time for more."""

from __future__ import annotations

import math
import time
from collections.abc import Callable


class TimeLimit(Exception):
    """A command's time is over. What is on disk is whole; the same command goes on from there.

    Args:
        what: is not done.
        spent: seconds that this command has spent on what it left unfinished, and will spend again.
    """

    def __init__(self, what: str, spent: float | None = None) -> None:
        super().__init__(what)
        self.spent = spent


class Deadline:
    """The moment at which a command's time is over.

    Args:
        seconds: from now, > 0; None: there is no limit.
        agree: returns what all processes hold true, given what this one sees: their clocks differ.

    Raises:
        ValueError: for a limit that is not positive.

    >>> Deadline(None).passed(), Deadline(60.0).passed(), Deadline(60.0).passed(needed=61.0)
    (False, False, True)
    """

    def __init__(self, seconds: float | None = None, agree: Callable[[bool], bool] = bool) -> None:
        if seconds is not None and not 0 < seconds < math.inf:
            raise ValueError(f"time_limit must be a positive number of seconds, got {seconds!r}")
        self.seconds, self._agree = seconds, agree
        self._end = math.inf if seconds is None else time.monotonic() + seconds

    def alone(self) -> Deadline:
        """Return the same moment for one process, which asks no other."""
        same = Deadline(None)
        same.seconds, same._end = self.seconds, self._end
        return same

    def left(self) -> float:
        """Return the seconds that are left; infinite without a limit."""
        return self._end - time.monotonic()

    def passed(self, needed: float = 0.0) -> bool:
        """Return whether less than ``needed`` seconds are left; the same in all processes."""
        return self.seconds is not None and self._agree(self.left() <= needed)

    def require(self, what: str, needed: float = 0.0) -> None:
        """Raise TimeLimit, saying what is not done, if less than ``needed`` seconds are left."""
        if self.passed(needed):
            raise TimeLimit(what)


NEVER = Deadline(None)
"""The end of a command without a time limit."""
