"""placeholder rnn"""

from jaxlm import DataConfig, OptimConfig, RnnConfig, RunConfig

config = RunConfig(
    model=RnnConfig(cell="rnn", d_embed=64, d_hidden=64),
    data=DataConfig(example="sequence"),
    optim=OptimConfig(name="adamw", lr=5e-4, betas=(0.9, 0.99), weight_decay=0.01),
    steps=20_000,
    batch_size=32,
)
