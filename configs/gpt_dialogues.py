"""A small GPT on dialogues, in REAN's tokens: what configs/rean_dialogues.py is measured against.

python train.py configs/gpt_dialogues.py --data.path dialogues.txt

Dev 0.8298 bits per byte on 12,174 service dialogues, 660,672 parameters, after 438 s on a core of a busy machine.
Measured before rows and parameters were drawn as they are now; not run again since.
"""

from jaxlm import DataConfig, EvalConfig, GptConfig, OptimConfig, ReanTokensConfig, RunConfig, SampleConfig

config = RunConfig(
    model=GptConfig(n_layers=3, n_heads=4, d_model=96, tied=True),
    data=DataConfig(
        kind="dialogues",
        tokens=ReanTokensConfig(max_vocab=3000),
        example="sequence",
        max_length=128,
        overlap=True,
        split=(0.98, 0.01, 0.01),
    ),
    optim=OptimConfig(
        name="adamw",
        lr=4e-3,
        schedule="cosine",
        warmup=0.05,
        end_factor=0.05,
        betas=(0.9, 0.98),
        weight_decay=0.01,
        clip=1,
    ),
    eval=EvalConfig(every=500, max_tokens=50_000),
    sample=SampleConfig(n=5, temperature=0.7),
    steps=2500,
    batch_size=8,
)
