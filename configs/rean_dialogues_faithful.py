"""REAN on dialogues as it was published, on vectors of word2vec: mean squared error, raw vectors, no projections.

python train.py configs/rean_dialogues_faithful.py --data.path dialogues.txt

Dev 2.3609 bits per byte on 12,174 service dialogues, 333,321 parameters trained beside 423,410 constants: the
frequencies of the tokens, no more. Its rate is the published one, at which so few steps teach it little.
Measured before rows and parameters were drawn as they are now; not run again since.
"""

import dataclasses

from configs.gpt_dialogues import config as gpt
from jaxlm import FaithfulReanConfig, OptimConfig, VectorsConfig

config = dataclasses.replace(
    gpt,
    model=FaithfulReanConfig(vectors_from=VectorsConfig(), d_embed=128, n_layers=4, n_heads=8),
    optim=OptimConfig(name="adamw", lr=3e-5, schedule="cosine", end_factor=1 / 30),
)
