"""What makes passes through a network fast on a GPU: attention without masks, fewer bits, compiled kernels."""
