"""The theory in numbers: recursions, their fixed points, amplification, orbits."""
