"""Benchmark a training step by vocabulary size: GPT's softmax against REAN's objectives.

REAN's table is drawn once; the contrastive objective is also measured with a learned table.

    python benchmarks/rean_head.py [--tokens 128] [--sizes 1000 10000 100000 1000000] [--seconds 1] [--out FILE]

Every model has the same single block and sees the same batch of random tokens; a step is loss, gradient and AdamW.
Each is compiled once for each size, then the models are measured in alternation. Prints milliseconds, and ratios to GPT
at the same size; a model that would exceed the free memory, or whose steps would take too long judged by the previous
size, is reported as left out. At the end, the exact search of the nearest row in a table of the largest size gives the
most tokens a second that decoding by vector can reach.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxlm import GptConfig, ModelConfig, ReanConfig
from jaxlm.data.rows import Batch
from jaxlm.embeddings import search
from jaxlm.plots import pictures
from jaxlm.rean.model import ReanModel
from jaxlm.rean.training import objective_of
from jaxlm.training.program import Objective
from jaxlm.training.state import TrainState

CONTEXT, ROUNDS, WIDTH = 64, 3, 64
"""Tokens of a sequence, rounds of measurement, and width of the models."""
LEARNED = "REAN contrastive, learned table"
"""Name of the model whose table is trained."""
LONGEST = 20.0
"""Most seconds for a model's steps at one size."""
BATCHES = (1, 16, 128)
"""Queries of one search for nearest rows."""
BLOCKS = {"n_layers": 1, "n_heads": 4, "d_model": WIDTH, "context": CONTEXT}
"""Sizes that all models share."""


def models(V: int) -> dict[str, ModelConfig]:
    """Configs of the models compared, by name, for a vocabulary of V tokens."""

    def rean(objective: str, table: str = "random") -> ReanConfig:
        return ReanConfig(**BLOCKS, vocab_size=V, objective=objective, table=table)  # type: ignore[arg-type]

    return {
        "GPT softmax": GptConfig(**BLOCKS, vocab_size=V),  # type: ignore[arg-type]
        "REAN softmax": rean("softmax"),
        "REAN contrastive": rean("contrastive"),
        LEARNED: rean("contrastive", "learned"),
        "REAN mse": rean("mse"),
    }


def bytes_of(name: str, V: int, tokens: int) -> int:
    """Approximate bytes that a model's steps take: four copies of trained rows (gradient, moments), three of logits."""
    rows = {"GPT softmax": 2 * 4, LEARNED: 4}.get(name, 1)
    logits = 3 * tokens * V if name.endswith("softmax") else 0
    return 4 * (rows * V * WIDTH + logits)


def free_bytes() -> int:
    """Free memory of the machine."""
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def nearest(V: int, seconds: float) -> None:
    """Print the speed of the exact search for the nearest row, for batches of queries."""
    unit_VE = search.unit_rows(jax.random.normal(jax.random.key(0), (V, WIDTH)))
    for B in BATCHES:
        query_BE = jax.random.normal(jax.random.key(1), (B, WIDTH))
        jax.block_until_ready(search.nearest_rows(unit_VE, query_BE, 1))
        taken: list[float] = []
        end = time.perf_counter() + seconds
        while (began := time.perf_counter()) < end or not taken:
            jax.block_until_ready(search.nearest_rows(unit_VE, query_BE, 1))
            taken.append(time.perf_counter() - began)
        print(f"nearest of {V:,} rows, {B} at a time: {B / statistics.median(taken):,.0f} tokens/s", flush=True)


def stepper(config: ModelConfig, V: int, tokens: int) -> Callable[[], None]:
    """Build a compiled function that trains one step."""
    model = config.build()
    rng = np.random.default_rng(0)
    tok_BT = rng.integers(0, V, (tokens // CONTEXT, CONTEXT + 1)).astype(np.int32)
    batch = Batch(jnp.asarray(tok_BT[:, :-1]), jnp.asarray(tok_BT[:, 1:]), jnp.ones((tokens // CONTEXT, CONTEXT)))
    buffers = None
    objective = Objective()
    if isinstance(model, ReanModel):
        objective = objective_of(model)
        buffers = jax.device_put(model.buffers([], rng.integers(1, 1000, V), None, 0))
    optimizer = optax.adamw(1e-3)
    params = jax.jit(model.init)(jax.random.key(0), batch.tok)
    state = TrainState(jnp.int32(0), params, optimizer.init(params))
    step = jax.jit(objective.make_step(model, objective.loss, optimizer, 0.0), donate_argnums=0)

    def one() -> None:
        nonlocal state
        state, (loss, _, _) = step(state, batch, jax.random.fold_in(jax.random.key(1), state.step), buffers)
        loss.block_until_ready()

    one()
    return one


def main() -> None:
    """Measure every model at every size, print the times and draw them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=128, help="predictions in a batch")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--seconds", type=float, default=1.0, help="for each model and size")
    parser.add_argument("--out", type=Path, default=Path("runs/rean_head.png"))
    args = parser.parse_args()
    lines: dict[str, tuple[list[float], list[float]]] = {}
    print(f"milliseconds for a step of {args.tokens} tokens (times GPT's speed)")
    for V in args.sizes:
        steppers: dict[str, Callable[[], None]] = {}
        for name, config in models(V).items():
            x, y = lines.get(name, ([V], [0.0]))
            seconds = 1e-3 * y[-1] * V / x[-1] * (ROUNDS + 1) if name.endswith("softmax") else 0.0
            if bytes_of(name, V, args.tokens) > 0.8 * free_bytes():
                print(f"V = {V:>9,}: {name} left out, it wants {bytes_of(name, V, args.tokens) / 2**30:.1f} GiB")
            elif seconds > LONGEST:
                print(f"V = {V:>9,}: {name} left out, its steps would take about {seconds:.0f} s")
            else:
                steppers[name] = stepper(config, V, args.tokens)
        times: dict[str, list[float]] = {name: [] for name in steppers}
        for _ in range(ROUNDS):
            for name, one in steppers.items():
                end = time.perf_counter() + args.seconds / ROUNDS
                while (began := time.perf_counter()) < end:
                    one()
                    times[name].append(time.perf_counter() - began)
        median = {name: 1e3 * statistics.median(taken) for name, taken in times.items()}
        gpt = median.get("GPT softmax")
        times_in_words = ", ".join(
            f"{name} {ms:.2f}" + (f" ({gpt / ms:.1f}x)" if gpt else "") for name, ms in median.items()
        )
        print(f"V = {V:>9,}: {times_in_words}", flush=True)
        for name, ms in median.items():
            x, y = lines.setdefault(name, ([], []))
            x.append(V)
            y.append(ms)
        del steppers
    nearest(max(args.sizes), args.seconds)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    title = f"A training step of {args.tokens} tokens"
    pictures.curves(lines, args.out, title=title, xlabel="tokens in the vocabulary", ylabel="milliseconds", log="xy")


if __name__ == "__main__":
    main()
