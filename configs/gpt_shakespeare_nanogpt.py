"""nanoGPT's setting of shakespeare_char for a CPU: four blocks, 128 wide, characters, a context of 64.

    python train.py configs/gpt_shakespeare_nanogpt.py --data.path tinyshakespeare.txt

The first 90 % of the text are train, the last 10 % are dev. Rows are drawn with replacement, as nanoGPT draws them.
"""

from jaxlm import DataConfig, GptConfig, OptimConfig, RunConfig

config = RunConfig(
    model=GptConfig.gpt2(context=64, n_layers=4, n_heads=4, d_model=128, bias=False),
    data=DataConfig(
        name="tinyshakespeare",
        kind="stream",
        example="sequence",
        max_length=64,
        order="replacement",
        split=(0.9, 0.1, 0.0),
    ),
    optim=OptimConfig(
        name="adamw",
        lr=1e-3,
        schedule="cosine",
        warmup=100,
        end_factor=0.1,
        betas=(0.9, 0.99),
        weight_decay=0.1,
        decay="matrices",
        clip=1.0,
    ),
    steps=2000,
    batch_size=12,
)
