"""Benchmark decoding with the cache against an uncached loop, which runs the whole context again for each token.

    python benchmarks/decode.py [--contexts 64 128 256 512 1024] [--layers 4] [--width 128] [--batch 1] [--rounds 3]

Both draw at temperature 1 from an untrained GPT of GPT-2's form with 65 tokens, from a prompt of one token to the whole
context, in one compiled loop each; times alternate. A cached token reads the parameters and the keys and values before
it, so that its time is flat but for attention's share, which is printed as operations.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxlm
from jaxlm.inference import engine
from jaxlm.inference.sampling import Strategy
from jaxlm.models.base import LanguageModel, Params

VOCAB = 65


def main() -> None:
    """Print a line for each context."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--contexts", type=int, nargs="+", default=[64, 128, 256, 512, 1024])
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    for context in args.contexts:
        config = jaxlm.GptConfig.gpt2(
            n_layers=args.layers, n_heads=4, d_model=args.width, context=context, vocab_size=VOCAB
        )
        model = config.build()
        params = model.init(jax.random.key(0), jnp.zeros((1, 2), jnp.int32))
        runs: dict[str, Callable[[int], None]] = {
            "cached": partial(cached, model, params, args.batch, context),
            "uncached": uncached(model, params, args.batch, context),
        }
        times: dict[str, list[float]] = {name: [] for name in runs}
        for run in runs.values():
            run(0)  # compiles
        for seed in range(args.rounds):
            for name, run in runs.items():
                began = time.perf_counter()
                run(seed)
                times[name].append(time.perf_counter() - began)
        tokens = args.batch * (context - 1)
        rate = {name: tokens / statistics.median(seconds) for name, seconds in times.items()}
        products = 12 * args.layers * args.width**2 + VOCAB * args.width
        attention = args.layers * args.width * context  # 2 products over half the context on average
        print(
            f"context {context:5}: cached {rate['cached']:9,.0f} tokens/s, uncached {rate['uncached']:9,.0f}, "
            f"{rate['cached'] / rate['uncached']:5.1f} times; attention has {attention / (attention + products):.0%} "
            "of the cached operations",
            flush=True,
        )


def cached(model: LanguageModel[Any], params: Params, batch: int, context: int, seed: int) -> None:
    """Draw a whole context with the engine."""
    new = engine.decode(
        model,
        params,
        [[0]] * batch,
        settings=Strategy().rows(batch),
        key=jax.random.key(seed),
        place_B=np.arange(batch),
        limit_B=np.full(batch, context - 1, np.int32),
        allowed_V=np.ones(VOCAB, bool),
    )
    assert sum(len(row) for rows in new for row in rows) == batch * (context - 1)


def uncached(model: LanguageModel[Any], params: Params, batch: int, context: int) -> Callable[[int], None]:
    """Build the loop that applies the model to the whole context for each token."""

    @jax.jit
    def loop(params: Params, key: jax.Array) -> jax.Array:
        def draw(place: jax.Array, tok_BT: jax.Array) -> jax.Array:
            logits_BTV = model.apply(params, tok_BT)
            logits_BV = jax.lax.dynamic_index_in_dim(logits_BTV, place, axis=1, keepdims=False)
            tok_B = jax.random.categorical(jax.random.fold_in(key, place), logits_BV)
            return tok_BT.at[:, place + 1].set(tok_B.astype(tok_BT.dtype))

        return jax.lax.fori_loop(0, context - 1, draw, jnp.zeros((batch, context), jnp.int32))

    def run(seed: int) -> None:
        jax.block_until_ready(loop(params, jax.random.key(seed)))

    return run


if __name__ == "__main__":
    main()
