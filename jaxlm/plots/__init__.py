"""Pictures of runs: bigrams, losses, maps of words. The only matplotlib."""
