"""Where orbits go in the long run: limits, attractors, cycles, chaos, basins."""
