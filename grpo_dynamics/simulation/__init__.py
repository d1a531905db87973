"""Policies that are small enough to list: every departure of real training from the theory, one at a time."""
