"""The working REAN on dialogues: word2vec on train's tokens first, then a softmax over cosines to the tuned vectors.

python train.py configs/rean_dialogues.py --data.path dialogues.txt
"""

import dataclasses

from configs.gpt_dialogues import config as gpt
from jaxlm import ReanConfig, VectorsConfig

model = ReanConfig(table="tuned", vectors_from=VectorsConfig(), d_embed=96, n_layers=3, n_heads=4, d_model=96)
config = dataclasses.replace(gpt, model=model)
