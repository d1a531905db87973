"""Real training beside the theory: what a run measured, what was predicted of it, and what lies between."""
