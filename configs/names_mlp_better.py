"""The MLP of Bengio et al. (2003) on the bundled names, with layers scaled by their fan-in.

    python train.py configs/names_mlp_better.py

Dev loss 2.0999 nats per token after 25 s on two busy cores.
"""

from jaxlm import DataConfig, MlpConfig, OptimConfig, RunConfig

config = RunConfig(
    model=MlpConfig(context=3, d_embed=10, d_hidden=200, init="scaled"),
    data=DataConfig(order="replacement"),
    optim=OptimConfig(name="sgd", lr=0.1, schedule="piecewise", boundaries=(0.5,), factors=(0.1,)),
    steps=200_000,
    batch_size=32,
)
