"""Elman's network with tanh on the bundled names, at makemore's size.

    python train.py configs/names_rnn.py

Dev loss 2.0567 nats per token after 81 s on two busy cores.
"""

from jaxlm import DataConfig, OptimConfig, RnnConfig, RunConfig

config = RunConfig(
    model=RnnConfig(cell="rnn", d_embed=64, d_hidden=64),
    data=DataConfig(example="sequence", order="replacement"),
    optim=OptimConfig(name="adamw", lr=5e-3, schedule="cosine", warmup=200, betas=(0.9, 0.99), weight_decay=0.01),
    steps=20_000,
    batch_size=32,
)
