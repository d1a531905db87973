"""What happens within an iteration: drawing answers, a gradient step, the inner loop to the maximiser."""
