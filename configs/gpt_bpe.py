"""A small GPT on running text of any kind, in byte-level BPE of 4,096 tokens that is trained on its train split.

    python train.py configs/gpt_bpe.py --data.path book.txt

Wants the extra `bpe`. Four blocks of the modern form, 192 wide, 256 tokens of context: for a laptop and a text of a few
MB. A smaller text wants fewer tokens (`--data.tokens.vocab-size 1024`) and more dropout; dialogues and lists want
`--data.kind dialogues` or `lines`. Losses compare with those of other tokens in bits per byte.
"""

from jaxlm import BpeConfig, DataConfig, EvalConfig, GptConfig, OptimConfig, RunConfig, SampleConfig

config = RunConfig(
    model=GptConfig.modern(n_layers=4, n_heads=4, d_model=192, dropout=0.1, value_embeds=False),
    data=DataConfig(kind="stream", tokens=BpeConfig(vocab_size=4096), example="sequence", max_length=256),
    optim=OptimConfig(name="muon", lr=3e-3, muon_lr=0.02, schedule="linear", warmup=0.01, betas=(0.9, 0.95)),
    eval=EvalConfig(every=500, max_tokens=100_000),
    sample=SampleConfig(n=5, temperature=0.8),
    steps=3000,
    batch_size=8,
)
