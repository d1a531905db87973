"""Hypothesis runs the same examples everywhere, and never looks at the clock."""

from hypothesis import settings

settings.register_profile("package", deadline=None, derandomize=True, max_examples=150, print_blob=False)
settings.load_profile("package")
