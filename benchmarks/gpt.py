"""Benchmark a GPT's training step against PyTorch, eager and compiled, alternating in one process.

    pip install -e ".[bench]" && python benchmarks/gpt.py tinyshakespeare.txt [--sizes small large] [--rounds 5]

Both have GPT-2's form without biases, tied embeddings, AdamW and clipping. PyTorch runs with 1 and 2 threads, its fused
attention and its fused AdamW, and its best counts. The limit is what the step's products would take at the speed of one
large product of matrices, measured here with all threads.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import jax
import torch
from torch_gpt import Gpt, optimizer_of, step

import jaxlm
from jaxlm.data.corpus import Corpus
from jaxlm.devices import peaks
from jaxlm.models.base import axes_of
from jaxlm.training import optim
from jaxlm.training.setup import Setup, set_up

SIZES = {"small": (4, 128, 4, 64, 12), "large": (6, 384, 6, 256, 8)}
"""Layers, width, heads, context and rows of a batch: nanoGPT's setting for a CPU, and that for a GPU."""
SECONDS = 3.0
"""Approximate duration of one measurement."""


def main() -> None:
    """Measure in rounds, and print medians, ratios and shares of the limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="a text")
    parser.add_argument("--sizes", nargs="*", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-compile", action="store_true", help="without torch.compile, which wants a C++ compiler")
    args = parser.parse_args()
    for name in args.sizes:
        setup = setup_of(args.data, *SIZES[name])
        runs: dict[str, Callable[[], float]] = {"ours": our_step(setup), "ours, a call a step": our_step(setup, K=1)}
        for threads in (1, 2):
            runs[f"eager, {threads} threads"] = torch_step(setup, threads, compiled=False)
            if not args.no_compile:
                runs[f"compiled, {threads} threads"] = torch_step(setup, threads, compiled=True)
        times: dict[str, list[float]] = {label: [] for label in runs}
        for _ in range(args.rounds):
            for label, run in runs.items():
                times[label].append(run())
        limit = product_flops(setup) / peaks.flops_per_second(setup.mesh)
        medians = {label: statistics.median(seconds) for label, seconds in times.items()}
        peers = [label for label in medians if not label.startswith("ours")]
        head = f"{name}: {setup.parameters:,} parameters, {setup.batch_tokens:,} tokens a step"
        print(f"\n{head}, limit {1e3 * limit:.1f} ms")
        for label, median in medians.items():
            print(f"  {label:22} {1e3 * median:8.1f} ms  {limit / median:4.0%} of the limit", flush=True)
        ratios = [min(times[peer][i] for peer in peers) / times["ours"][i] for i in range(args.rounds)]
        low, middle, high = min(ratios), statistics.median(ratios), max(ratios)
        print(f"  {middle:.2f} times PyTorch at its best ({low:.2f} to {high:.2f} in {args.rounds} rounds)")


def setup_of(data: str, layers: int, width: int, heads: int, context: int, batch: int) -> Setup:
    """Set up the GPT of these sizes."""
    model = jaxlm.GptConfig.gpt2(n_layers=layers, n_heads=heads, d_model=width, context=context, bias=False)
    return set_up(
        jaxlm.RunConfig(
            model=model,
            data=jaxlm.DataConfig(
                path=data,
                kind="stream",
                example="sequence",
                max_length=context,
                order="replacement",
                split=(0.9, 0.1, 0),
            ),
            optim=jaxlm.OptimConfig(
                name="adamw", lr=1e-3, betas=(0.9, 0.99), weight_decay=0.1, decay="matrices", clip=1.0
            ),
            steps=10_000,
            batch_size=batch,
        )
    )


def our_step(setup: Setup, K: int | None = None) -> Callable[[], float]:
    """Build our training in chunks of K steps, None for as many as take about a second; returns seconds a step."""
    transformation = optim.transformation(setup.config.optim, 10_000, axes_of(setup.model))
    chunk = setup.compiled_chunk(transformation, optim.schedule(setup.config.optim, 10_000))
    size = K or max(1, round(5e10 / product_flops(setup)))
    box = [
        jax.block_until_ready(chunk(setup.initial_state(transformation), setup.dataset.batches(0, size), {}, size))[0]
    ]

    def run() -> float:
        began, steps = time.perf_counter(), 0
        while time.perf_counter() - began < SECONDS:
            box[0], _ = jax.block_until_ready(chunk(box[0], setup.dataset.batches(steps, size), {}, size))
            steps += size
        return (time.perf_counter() - began) / steps

    return run


def torch_step(setup: Setup, threads: int, *, compiled: bool) -> Callable[[], float]:
    """Build PyTorch's training of the same sizes; returns seconds a step."""
    config = setup.config.model
    assert isinstance(config, jaxlm.GptConfig) and config.context is not None
    context, vocab = config.context, setup.corpus.tokenizer.vocab_size
    model: torch.nn.Module = Gpt(vocab, context, config.d_model, config.n_heads, config.n_layers)
    optimizer, batch = optimizer_of(model), setup.dataset.batch_size
    assert isinstance(setup.corpus, Corpus)
    data = torch.tensor(setup.corpus.tokens("train")).long()
    if compiled:
        model = torch.compile(model)  # type: ignore[assignment]

    def run() -> float:
        torch.set_num_threads(threads)
        began, steps = time.perf_counter(), 0
        while time.perf_counter() - began < SECONDS or steps < 2:
            rows = torch.randint(len(data) - context, (batch, 1)) + torch.arange(context)
            step(model, optimizer, data[rows], data[rows + 1])
            steps += 1
        return (time.perf_counter() - began) / steps

    torch.set_num_threads(threads)
    run()
    return run


def product_flops(setup: Setup) -> float:
    """Operations of a step's products: 6 for each number of a matrix and token, attention's full squares among them."""
    config = setup.config.model
    assert isinstance(config, jaxlm.GptConfig) and config.context is not None and config.vocab_size is not None
    matrices = 12 * config.n_layers * config.d_model**2 + config.vocab_size * config.d_model
    return 6.0 * setup.batch_tokens * (matrices + 2 * config.n_layers * config.d_model * config.context)


if __name__ == "__main__":
    main()
