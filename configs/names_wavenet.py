"""The makemore lecture's WaveNet on the bundled names: eight letters, fused in pairs over three levels.

    python train.py configs/names_wavenet.py

Dev loss 1.9853 nats per token on makemore's names (`--data.path names.txt`), 76,579 parameters, after 107 s on
two cores.
"""

from jaxlm import DataConfig, OptimConfig, RunConfig, WavenetConfig

config = RunConfig(
    model=WavenetConfig(layers=3, d_embed=24, d_hidden=128),
    data=DataConfig(order="replacement"),
    optim=OptimConfig(name="adamw", lr=1.5e-3, schedule="cosine", warmup=500, weight_decay=0.02),
    steps=150_000,
    batch_size=32,
)
