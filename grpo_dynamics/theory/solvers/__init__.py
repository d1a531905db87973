"""The numerical methods behind fixed points and flows."""
