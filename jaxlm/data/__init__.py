"""Text to tokens to splits to batches as a function of (seed, step)."""
