"""Plots of runs: bigrams, loss curves, maps of words. No other room imports matplotlib."""

import logging

logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it warns at length of a home that it cannot write to
