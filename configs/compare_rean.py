"""REAN with a contrastive objective on 30,000 words, its table learned by rows, for as long as configs/compare_gpt.py.

python train.py configs/compare_rean.py --data.path text.txt

Dev 2.2841 bits per byte on WordNet's glosses and the State of the Union speeches, 264 ms a step on a core of a busy
machine.
"""

import dataclasses

from configs.compare_gpt import config as gpt
from jaxlm import ReanConfig

model = ReanConfig(objective="contrastive", table="learned", d_embed=96, n_layers=3, n_heads=4, d_model=96)
config = dataclasses.replace(gpt, model=model, steps=964)
