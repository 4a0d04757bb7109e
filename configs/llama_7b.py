"""Llama 2 7B (Touvron et al. 2023) in bfloat16: 32 blocks, 4,096 wide, a context of 2,048, 32,000 tokens.

    python -m jaxlm.devices.plan configs/llama_7b.py --on h100x8 --mesh.fsdp 8 --batch-size 64

For planning: 6.7 billion parameters in float32 with AdamW's moments do not fit one device.
"""

from jaxlm import DataConfig, GptConfig, OptimConfig, RunConfig

config = RunConfig(
    model=GptConfig.llama(
        vocab_size=32_000,
        context=2048,
        n_layers=32,
        n_heads=32,
        d_model=4096,
        d_ff=11_008,
        dtype="bfloat16",
        remat="blocks",
    ),
    data=DataConfig(kind="stream", example="sequence", max_length=2048),
    optim=OptimConfig(
        name="adamw",
        lr=3e-4,
        schedule="cosine",
        warmup=2000,
        end_factor=0.1,
        betas=(0.9, 0.95),
        weight_decay=0.1,
        decay="matrices",
        clip=1.0,
    ),
    steps=500_000,
    batch_size=8,
)
