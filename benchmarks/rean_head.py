"""Time of a training step against the vocabulary, for GPT's softmax and for REAN's objectives on a frozen table.

    python benchmarks/rean_head.py [--tokens 128] [--sizes 1000 10000 100000 1000000] [--seconds 3] [--out FILE]

Every model has the same blocks and sees the same batch of random tokens; a step is loss, gradient and AdamW. Compiled
once for each size, then the models take turns. Prints milliseconds, and ratios to GPT at the same size.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxlm import GptConfig, ModelConfig, ReanConfig, plots
from jaxlm.data.batches import Batch
from jaxlm.models.base import HasConstants
from jaxlm.training.state import TrainState, make_step

CONTEXT, ROUNDS = 64, 5
BLOCKS = {"n_layers": 4, "n_heads": 4, "d_model": 64, "context": CONTEXT}


def models(V: int) -> dict[str, ModelConfig]:
    def rean(objective: str) -> ReanConfig:
        return ReanConfig(**BLOCKS, vocab_size=V, objective=objective, table="random")  # type: ignore[arg-type]

    return {
        "GPT softmax": GptConfig(**BLOCKS, vocab_size=V),  # type: ignore[arg-type]
        "REAN softmax": rean("softmax"),
        "REAN contrastive": rean("contrastive"),
        "REAN mse": rean("mse"),
    }


def stepper(config: ModelConfig, V: int, tokens: int) -> Callable[[], None]:
    """A function that makes one step, compiled."""
    model = config.build()
    rng = np.random.default_rng(0)
    tok_BT = rng.integers(0, V, (tokens // CONTEXT, CONTEXT + 1)).astype(np.int32)
    batch = Batch(jnp.asarray(tok_BT[:, :-1]), jnp.asarray(tok_BT[:, 1:]), jnp.ones((tokens // CONTEXT, CONTEXT)))
    constants = None
    if isinstance(model, HasConstants):
        constants = jax.device_put(model.constants([], rng.integers(1, 1000, V), None, 0))
    optimizer = optax.adamw(1e-3)
    params = jax.jit(model.init)(jax.random.key(0), batch.tok)
    state = TrainState(jnp.int32(0), params, optimizer.init(params))
    step = jax.jit(make_step(model, optimizer), donate_argnums=0)

    def one() -> None:
        nonlocal state
        state, loss, _ = step(state, batch, jax.random.fold_in(jax.random.key(1), state.step), constants)
        loss.block_until_ready()

    one()
    return one


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=128, help="predictions in a batch")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--seconds", type=float, default=3.0, help="for each model and size")
    parser.add_argument("--out", type=Path, default=Path("runs/rean_head.png"))
    args = parser.parse_args()
    lines: dict[str, tuple[list[float], list[float]]] = {}
    print(f"milliseconds for a step of {args.tokens} tokens (times GPT's speed)")
    for V in args.sizes:
        steppers = {name: stepper(config, V, args.tokens) for name, config in models(V).items()}
        times: dict[str, list[float]] = {name: [] for name in steppers}
        for _ in range(ROUNDS):
            for name, one in steppers.items():
                end = time.perf_counter() + args.seconds / ROUNDS
                while (began := time.perf_counter()) < end:
                    one()
                    times[name].append(time.perf_counter() - began)
        median = {name: 1e3 * statistics.median(taken) for name, taken in times.items()}
        told = ", ".join(f"{name} {ms:.2f} ({median['GPT softmax'] / ms:.1f}x)" for name, ms in median.items())
        print(f"V = {V:>9,}: {told}", flush=True)
        for name, ms in median.items():
            x, y = lines.setdefault(name, ([], []))
            x.append(V)
            y.append(ms)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    title = f"A training step of {args.tokens} tokens"
    plots.curves(lines, args.out, title=title, xlabel="tokens in the vocabulary", ylabel="milliseconds", log="xy")


if __name__ == "__main__":
    main()
