"""The modern form at the size of GPT-2 124M, in bfloat16; layers see 512 tokens, every fourth one all 1,024.

    python train.py configs/gpt2_124m_modern.py --data.path DIR

DIR has shards of GPT-2's tokens, as for configs/gpt2_124m.py.
"""

import dataclasses

from configs.gpt2_124m import config as gpt2
from jaxlm import GptConfig

config = dataclasses.replace(
    gpt2,
    model=GptConfig.modern(
        vocab_size=50_304,
        context=1024,
        n_layers=12,
        n_heads=6,
        d_model=768,
        window_pattern="SSSL",
        dtype="bfloat16",
    ),
)
