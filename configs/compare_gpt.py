"""A GPT with a softmax over 30,000 words: what configs/compare_rean.py is measured against.

python train.py configs/compare_gpt.py --data.path text.txt

Dev 2.5573 bits per byte on WordNet's glosses and the State of the Union speeches, 943 ms a step on a core of a busy
machine.
"""

import dataclasses

from configs.gpt_dialogues import config as dialogues
from jaxlm import ReanTokensConfig

data = dataclasses.replace(
    dialogues.data, kind="lines", tokens=ReanTokensConfig(max_vocab=30_000), split=(0.996, 0.002, 0.002)
)
config = dataclasses.replace(dialogues, data=data, eval=dataclasses.replace(dialogues.eval, every=150), steps=300)
