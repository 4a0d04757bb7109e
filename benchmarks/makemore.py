"""Benchmark makemore's models against eager PyTorch, alternating in one process: training, sampling, counting.

    pip install -e ".[bench]" && python benchmarks/makemore.py names.txt [--models rnn gru] [--rounds 5]

Sizes are makemore's: batches of 32 whole names (the WaveNet: 32 windows of the lecture), 64 wide, AdamW. PyTorch runs
with 1 and with 2 threads, and the faster one counts. Compilation is not part of the speeds; its time is printed.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch
from mlp import one_core_flops
from torch_models import build, generate

import jaxlm
from jaxlm.config.models import ModelConfig
from jaxlm.data.corpus import Corpus
from jaxlm.models import trie
from jaxlm.runs.loading import Run
from jaxlm.training import optim
from jaxlm.training.cadence import step_flops
from jaxlm.training.setup import Setup, set_up

MODELS: dict[str, ModelConfig] = {
    "bigram": jaxlm.NgramConfig(order=2),
    "mlp": jaxlm.MlpConfig(context=16, d_embed=64, d_hidden=64, init="scaled"),
    "bow": jaxlm.BowConfig(),
    "rnn": jaxlm.RnnConfig(cell="rnn"),
    "gru": jaxlm.RnnConfig(cell="gru"),
    "lstm": jaxlm.RnnConfig(cell="lstm"),
    "wavenet": jaxlm.WavenetConfig(),
    "transformer": jaxlm.GptConfig(),
}
"""Configs of the models, by name."""
BATCHES = (1, 50, 1000)
"""Names sampled together."""
NEW_TOKENS = 16
"""Tokens sampled for each name."""
COUNTED_TOKENS = 10_000_000
"""Tokens counted."""
SECONDS = 0.5
"""Approximate duration of one measurement."""


def main() -> None:
    """Run the three benchmarks and print their tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="a list of names")
    parser.add_argument("--models", nargs="*", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    limit = one_core_flops()
    print(f"one core's large float32 products: {limit / 1e9:.0f} Gflop/s; memory: {copy_bytes() / 1e9:.1f} GB/s copied")
    print("\ntraining       ours  PyTorch  ratio  compile   Mflop  of one core's limit   (ms a step)")
    setups = {name: setup_of(name, args.data) for name in args.models}
    for name, setup in setups.items():
        run, compile_s, flops = our_training(setup)
        ours, peer = in_turn(args.rounds, run, torch_training(name, setup))
        print(
            f"{name:12} {ours * 1e3:6.3f}  {peer * 1e3:7.3f}  {peer / ours:5.1f}  {compile_s:5.1f} s"
            f"  {flops / 1e6:6.1f}  {flops / ours / limit:18.0%}",
            flush=True,
        )
    print("\nsampling    batch      ours   PyTorch  ratio   (names/s)")
    for name, setup in setups.items():
        for batch in BATCHES:
            ours, peer = in_turn(args.rounds, our_sampling(setup, batch), torch_sampling(name, setup, batch))
            print(f"{name:12} {batch:4} {batch / ours:9,.0f} {batch / peer:9,.0f}  {peer / ours:5.1f}", flush=True)
    print("\ncounting    ours  dictionary  ratio  of the speed of copying   (ns a token)")
    setup = next(iter(setups.values()))
    for order in (2, 5):
        ours, peer, share = counting(setup, order, args.rounds)
        print(f"{order}-grams  {ours * 1e9:8.1f}  {peer * 1e9:10.1f}  {peer / ours:5.1f}  {share:23.1%}")


def setup_of(name: str, data: str) -> Setup:
    """Set up a model with the settings of makemore's script, on all names but 1,000."""
    return set_up(
        jaxlm.RunConfig(
            model=MODELS[name],
            data=jaxlm.DataConfig(
                path=data,
                example="window" if name == "wavenet" else "sequence",
                order="replacement",
                split=(0.968783, 0.031217, 0),
            ),
            optim=jaxlm.OptimConfig(name="adamw", lr=5e-4, betas=(0.9, 0.99), weight_decay=0.01),
            steps=10_000,
            batch_size=32,
        )
    )


def our_training(setup: Setup) -> tuple[Callable[[], float], float, float]:
    """Build our training: (function that trains and returns seconds a step, compile seconds, operations a step)."""
    optimizer = optim.transformation(setup.config.optim, 10_000)
    train_chunk = setup.compiled_chunk(optimizer, optim.schedule(setup.config.optim, 10_000))
    K = 200
    began = time.perf_counter()
    state, _ = jax.block_until_ready(train_chunk(setup.initial_state(optimizer), setup.dataset.batches(0, K), {}, K))
    compile_s = time.perf_counter() - began
    box = [state]

    def run() -> float:
        began, steps = time.perf_counter(), 0
        while time.perf_counter() - began < SECONDS:
            box[0], _ = jax.block_until_ready(train_chunk(box[0], setup.dataset.batches(steps, K), {}, K))
            steps += K
        return (time.perf_counter() - began) / steps

    return run, compile_s, step_flops(setup.parameters, setup.batch_tokens)


def torch_training(name: str, setup: Setup) -> Callable[[int], float]:
    """Build PyTorch's training, a function of the number of threads that returns seconds a step."""
    V = setup.corpus.tokenizer.vocab_size
    model = build(name, V, width_of(setup))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4, betas=(0.9, 0.99), weight_decay=0.01)
    host = setup.dataset.batch(np.asarray(setup.dataset.rows["train"]))
    x, y = (torch.from_numpy(np.array(part)).long() for part in (host.tok, host.target))
    if y.ndim == 2:
        y[torch.from_numpy(np.array(host.weight)) == 0] = -1

    def run(threads: int) -> float:
        torch.set_num_threads(threads)
        began, steps = time.perf_counter(), 0
        while time.perf_counter() - began < SECONDS:
            rows = torch.randint(0, len(x), (32,))
            logits = model(x[rows])
            loss = torch.nn.functional.cross_entropy(logits.view(-1, V), y[rows].view(-1), ignore_index=-1)
            model.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            steps += 1
        return (time.perf_counter() - began) / steps

    return run


def our_sampling(setup: Setup, batch: int) -> Callable[[], float]:
    """Build our sampling, a function that returns the seconds to sample and decode one batch of names."""
    params = setup.initial_state(optim.transformation(setup.config.optim, 1)).params
    opened = Run(Path(), setup.config, setup.corpus.tokenizer, setup.model, params, 0)
    count = iter(range(10**9))

    def once() -> None:
        texts = jaxlm.generate(opened, n=batch, max_tokens=NEW_TOKENS, key=jax.random.key(next(count)))
        assert len(texts) == batch

    return lambda: repeat(once)


def width_of(setup: Setup) -> int:
    """Tokens in a sequence, or in the context of a window."""
    return setup.dataset.targets_per_row if setup.config.data.example == "sequence" else setup.model.context or 0


def torch_sampling(name: str, setup: Setup, batch: int) -> Callable[[int], float]:
    """Build PyTorch's sampling, a function of the number of threads that returns the seconds for one batch of names."""
    tokenizer = setup.corpus.tokenizer
    model = build(name, tokenizer.vocab_size, width_of(setup))
    window = width_of(setup) if name == "wavenet" else None
    letters = [tokenizer.decode([token]) for token in range(tokenizer.vocab_size)]

    def once() -> None:
        texts = []
        for row in generate(model, batch, width_of(setup), NEW_TOKENS, window)[:, -NEW_TOKENS:].tolist():
            kept = row[: row.index(0)] if 0 in row else row
            texts.append("".join(letters[token] for token in kept))
        assert len(texts) == batch

    def run(threads: int) -> float:
        torch.set_num_threads(threads)
        return repeat(once)

    return run


def repeat(once: Callable[[], Any]) -> float:
    """Median seconds of a call, over about SECONDS of calls after a warm-up."""
    once()
    times: list[float] = []
    while sum(times) < SECONDS:
        began = time.perf_counter()
        once()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def in_turn(rounds: int, ours: Callable[[], float], peer: Callable[[int], float]) -> tuple[float, float]:
    """Median seconds of ours, and of the peer with its faster number of threads, measured in alternation."""
    times: dict[int, list[float]] = {0: [], 1: [], 2: []}
    for _ in range(rounds):
        times[0].append(ours())
        for threads in (1, 2):
            times[threads].append(peer(threads))
    one, two = (statistics.median(times[threads]) for threads in (1, 2))
    return statistics.median(times[0]), min(one, two)


def counting(setup: Setup, order: int, rounds: int) -> tuple[float, float, float]:
    """Seconds a token to count n-grams by the trie and by a dictionary, and the trie's share of copying speed."""
    corpus = setup.corpus
    assert isinstance(corpus, Corpus)
    copies = -(-COUNTED_TOKENS // len(corpus.tokens_N))
    tokens_N, age_N = np.tile(corpus.tokens_N, copies), np.tile(corpus.age_N, copies)
    some = tokens_N[: COUNTED_TOKENS // 10].tolist()
    times: dict[str, list[float]] = {"ours": [], "dictionary": []}
    for _ in range(rounds):
        began = time.perf_counter()
        trie.count(tokens_N, age_N, order, setup.corpus.tokenizer.vocab_size)
        times["ours"].append((time.perf_counter() - began) / len(tokens_N))
        began = time.perf_counter()
        counts: dict[tuple[int, ...], int] = {}
        for gram in zip(*(some[back:] for back in range(order)), strict=False):
            counts[gram] = counts.get(gram, 0) + 1
        times["dictionary"].append((time.perf_counter() - began) / len(some))
    ours, peer = (statistics.median(values) for values in times.values())
    return ours, peer, (tokens_N.itemsize + age_N.itemsize) / ours / copy_bytes()


def copy_bytes(size: int = 2**26) -> float:
    """Bytes a second read and written while a large array is copied."""
    source, target = np.ones(size, np.uint8), np.empty(size, np.uint8)
    times = []
    for _ in range(5):
        began = time.perf_counter()
        np.copyto(target, source)
        times.append(time.perf_counter() - began)
    return 2 * size / min(times)


if __name__ == "__main__":
    main()
