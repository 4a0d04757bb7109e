"""6-grams with interpolated modified Kneser-Ney smoothing on the bundled names: the table that a GPT has to beat.

    python train.py configs/names_kneser_ney.py

Dev loss 1.9645 nats per token, counted in 0.3 s.
"""

from jaxlm import CountsConfig, RunConfig

config = RunConfig(model=CountsConfig(order=6, smoothing="kneser-ney"))
