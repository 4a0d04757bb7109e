"""The modern form on Shakespeare's characters, for ten minutes of two cores.

    python train.py configs/gpt_shakespeare.py --data.path tinyshakespeare.txt

The first 90 % of the text are train, the last 10 % are dev.
"""

import dataclasses

from configs.gpt_shakespeare_nanogpt import config as nanogpt
from jaxlm import GptConfig, OptimConfig

config = dataclasses.replace(
    nanogpt,
    model=GptConfig.modern(context=128, n_layers=4, n_heads=4, d_model=192),
    data=dataclasses.replace(nanogpt.data, max_length=128, order="shuffled"),
    optim=OptimConfig(
        name="adamw",
        lr=3e-3,
        schedule="cosine",
        warmup=100,
        end_factor=0.05,
        betas=(0.9, 0.99),
        weight_decay=0.1,
        decay="matrices",
        clip=1.0,
    ),
    steps=3000,
    batch_size=16,
)
