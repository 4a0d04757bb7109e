"""GPT-2's transformer on the bundled names: four blocks, 96 wide, dropout against learning the names by heart.

    python train.py configs/names_gpt.py

Dev loss 1.9625 nats per token on makemore's names (`--data.path names.txt`), 454,272 parameters, after 2,411 s on
two busy cores.
"""

from jaxlm import DataConfig, GptConfig, OptimConfig, RunConfig

config = RunConfig(
    model=GptConfig(n_layers=4, n_heads=4, d_model=96, dropout=0.15),
    data=DataConfig(example="sequence", order="replacement"),
    optim=OptimConfig(name="adamw", lr=2e-3, schedule="cosine", warmup=300, betas=(0.9, 0.99), weight_decay=0.1),
    steps=12_000,
    batch_size=64,
)
