"""Plots of runs: bigrams, loss curves, maps of words. No other room imports matplotlib."""
