"""REAN on dialogues as it was published, on vectors of word2vec: mean squared error, raw vectors, no projections.

python train.py configs/rean_dialogues_faithful.py --data.path dialogues.txt

Its rate is the published one; at so few steps of it little is learned.
"""

from jaxlm import DataConfig, EvalConfig, FaithfulReanConfig, OptimConfig, RunConfig, SampleConfig, VectorsConfig

config = RunConfig(
    model=FaithfulReanConfig(vectors_from=VectorsConfig(), d_embed=128, n_layers=4, n_heads=8),
    data=DataConfig(
        kind="dialogues",
        tokens="rean",
        vocab_limit=3000,
        example="sequence",
        max_length=128,
        split=(0.98, 0.01, 0.01),
    ),
    optim=OptimConfig(name="adamw", lr=3e-5, schedule="cosine", end_factor=1 / 30),
    eval=EvalConfig(every=150, max_tokens=50_000),
    sample=SampleConfig(n=5, temperature=0.7),
    steps=300,
    batch_size=8,
)
