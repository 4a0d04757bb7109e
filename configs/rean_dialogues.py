"""The working REAN on dialogues: word2vec on train's tokens first, then a softmax over cosines to the tuned vectors.

python train.py configs/rean_dialogues.py --data.path dialogues.txt
"""

from jaxlm import DataConfig, EvalConfig, OptimConfig, ReanConfig, RunConfig, SampleConfig, VectorsConfig

config = RunConfig(
    model=ReanConfig(
        objective="softmax",
        table="tuned",
        vectors_from=VectorsConfig(),
        d_embed=96,
        n_layers=3,
        n_heads=4,
        d_model=96,
    ),
    data=DataConfig(
        kind="dialogues",
        tokens="rean",
        vocab_limit=3000,
        example="sequence",
        max_length=128,
        split=(0.98, 0.01, 0.01),
    ),
    optim=OptimConfig(
        name="adamw",
        lr=2e-3,
        schedule="cosine",
        warmup=0.05,
        end_factor=0.05,
        betas=(0.9, 0.98),
        weight_decay=0.01,
        clip=1,
    ),
    eval=EvalConfig(every=150, max_tokens=50_000),
    sample=SampleConfig(n=5, temperature=0.7),
    steps=300,
    batch_size=8,
)
