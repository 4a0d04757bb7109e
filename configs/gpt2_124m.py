"""GPT-2 124M (Radford et al. 2019) in bfloat16: 12 blocks, 768 wide, a context of 1,024, GPT-2's 50,257 tokens.

    python train.py configs/gpt2_124m.py --data.path DIR

DIR has shards of GPT-2's tokens. The vocabulary is filled up to 50,304, a multiple of 128, for the matrix units.
"""

from jaxlm import DataConfig, GptConfig, OptimConfig, RunConfig

config = RunConfig(
    model=GptConfig.gpt2(
        vocab_size=50_304, context=1024, n_layers=12, n_heads=12, d_model=768, bias=False, dtype="bfloat16"
    ),
    data=DataConfig(kind="stream", example="sequence", max_length=1024),
    optim=OptimConfig(
        name="adamw",
        lr=6e-4,
        schedule="cosine",
        warmup=700,
        end_factor=0.1,
        betas=(0.9, 0.95),
        weight_decay=0.1,
        decay="matrices",
        clip=1.0,
    ),
    steps=19_000,
    batch_size=32,
)
