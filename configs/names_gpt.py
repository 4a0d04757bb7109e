"""placeholder gpt"""

from jaxlm import DataConfig, GptConfig, OptimConfig, RunConfig

config = RunConfig(
    model=GptConfig(n_layers=4, n_heads=4, d_model=64),
    data=DataConfig(example="sequence"),
    optim=OptimConfig(name="adamw", lr=5e-4, betas=(0.9, 0.99), weight_decay=0.01),
    steps=30_000,
    batch_size=32,
)
