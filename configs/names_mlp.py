"""The MLP of Bengio et al. (2003) on the bundled names, parameters drawn from N(0, 1).

    python train.py configs/names_mlp.py

Dev loss 2.1545 nats per token after 29 s on two busy cores. The loss depends on the seed, since parameters from
N(0, 1) start far from any solution: on makemore's names seeds 0 to 4 give 2.173 on average, standard error 0.010.
"""

from jaxlm import DataConfig, MlpConfig, OptimConfig, RunConfig

config = RunConfig(
    model=MlpConfig(context=3, d_embed=10, d_hidden=200, init="normal"),
    data=DataConfig(order="replacement"),
    optim=OptimConfig(name="sgd", lr=0.1, schedule="piecewise", boundaries=(0.5,), factors=(0.1,)),
    steps=200_000,
    seed=2,
    batch_size=32,
)
