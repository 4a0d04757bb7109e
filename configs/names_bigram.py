"""Bigram counts with add-1 smoothing on the bundled names: what letter follows what.

    python train.py configs/names_bigram.py

Dev loss 2.4629 nats per token, counted in 0.1 s.
"""

from jaxlm import CountsConfig, RunConfig

config = RunConfig(model=CountsConfig(order=2, add_k=1.0))
