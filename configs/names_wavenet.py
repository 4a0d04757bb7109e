"""The makemore lecture's WaveNet on the bundled names: eight letters, fused in pairs over three levels.

    python train.py configs/names_wavenet.py

MEASURED
"""

from jaxlm import OptimConfig, RunConfig, WavenetConfig

config = RunConfig(
    model=WavenetConfig(layers=3, d_embed=24, d_hidden=128),
    optim=OptimConfig(name="adamw", lr=2e-3, schedule="cosine", warmup=500, betas=(0.9, 0.99), weight_decay=0.1),
    steps=120_000,
    batch_size=32,
)
