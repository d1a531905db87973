"""Where users already are: a callback for TRL, and reward functions for OpenRLHF and verl that keep what they see."""
