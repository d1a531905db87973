"""What certificates say: how sure, and why."""

from __future__ import annotations

import enum


class Certainty(enum.IntEnum):
    """How much is proved of one element."""

    CERTIFIED = 0
    DEGENERATE = 1
    UNDECIDED = 2

    @property
    def meaning(self) -> str:
        """One line in plain words."""
        return {
            Certainty.CERTIFIED: "everything is proved: number, places and stability",
            Certainty.DEGENERATE: "on a fold, a cusp or a flip as far as the tolerance can tell: see the reason",
            Certainty.UNDECIDED: "not proved; the reason says why",
        }[self]


class Grounds(enum.IntEnum):
    """Why a certificate says what it says."""

    PROVED = 0
    ABOVE_FOLD = 1
    NO_PULL = 2
    FOLD = 3
    CUSP = 4
    FLIP = 5
    PRECISION = 6
    NO_ORBIT = 7
    AT_ONE = 8

    @property
    def meaning(self) -> str:
        """One line in plain words."""
        return {
            Grounds.PROVED: "number, places and stability are proved",
            Grounds.ABOVE_FOLD: "proved: no interior fixed point, p goes to 1",
            Grounds.NO_PULL: "proved: no interior fixed point, as nothing pulls back to the reference",
            Grounds.FOLD: "two fixed points are about to merge or have just done so: their number is not claimed",
            Grounds.CUSP: "three fixed points are about to merge or have just done so: their number is not claimed",
            Grounds.FLIP: "number and places are proved; one multiplier is too close to −1 to claim its stability",
            Grounds.PRECISION: "not decided at the largest working precision",
            Grounds.NO_ORBIT: "no orbit of exactly this period was found where it was said to be",
            Grounds.AT_ONE: "the fixed point is about to leave through p = 1 or has just left: it is not claimed",
        }[self]

    @property
    def certainty(self) -> Certainty:
        """How sure that is."""
        if self in (Grounds.FOLD, Grounds.CUSP, Grounds.FLIP, Grounds.AT_ONE):
            return Certainty.DEGENERATE
        return Certainty.UNDECIDED if self in (Grounds.PRECISION, Grounds.NO_ORBIT) else Certainty.CERTIFIED
