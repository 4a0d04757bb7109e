"""Benchmark word vectors against gensim, alternating in one process: loading files, neighbours, analogy questions.

    pip install -e ".[bench]" && python benchmarks/embeddings.py glove.6B.50d.subset.txt questions-words.txt

Neighbours are searched in a table of random vectors; their times are also given as shares of the machine's memory
bandwidth and of its cores' product rate, both measured here. gensim answers one query or question at a time, so a batch
is compared with as many calls.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gensim.models import KeyedVectors

from jaxlm import Embeddings
from jaxlm.embeddings.intrinsic_evaluation import evaluate_analogies
from jaxlm.embeddings.search import nearest_rows, unit_rows

TABLE, BATCHES, NEIGHBOURS = (1_000_000, 100), (1, 32, 256), 10
"""Words and width of the searched table, queries in a batch, and neighbours of each query."""
BINARY = (200_000, 100)
"""Words and width of the binary file."""
CORES = len(os.sched_getaffinity(0))
"""Cores that this process may use."""
EVERY = 40
"""One in this many questions is answered."""


def main() -> None:
    """Run all three benchmarks and print their tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("glove", type=Path, help="vectors in GloVe's text format")
    parser.add_argument("questions", type=Path, help="questions-words.txt")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        loading(args.glove, Path(scratch), args.rounds)
        questions(args.glove, args.questions, Path(scratch))
    neighbours(args.rounds)


def loading(glove: Path, scratch: Path, rounds: int) -> None:
    """Print the seconds to load a text and a binary file, and to save the text."""
    V, E = BINARY
    words = tuple(f"word{row}" for row in range(V))
    binary = scratch / "vectors.bin"
    Embeddings(words, random_table(V, E)).save(binary)
    table, theirs = Embeddings.load(glove), KeyedVectors.load_word2vec_format(glove, no_header=True)
    print("files                     ours s  gensim s  ratio    MB/s")
    jobs: dict[str, tuple[Path, Callable[[], Any], Callable[[], Any]]] = {
        "load GloVe text": (
            glove,
            lambda: Embeddings.load(glove),
            lambda: KeyedVectors.load_word2vec_format(glove, no_header=True),
        ),
        f"load binary {V:,} x {E}": (
            binary,
            lambda: Embeddings.load(binary),
            lambda: KeyedVectors.load_word2vec_format(binary, binary=True),
        ),
        "save GloVe text": (
            glove,
            lambda: table.save(scratch / "ours.glove.txt"),
            lambda: theirs.save_word2vec_format(scratch / "theirs.txt", write_header=False),
        ),
    }
    for name, (path, ours, peer) in jobs.items():
        ours_s, peer_s = in_turn(rounds, ours, peer)
        speed = path.stat().st_size / ours_s / 1e6
        print(f"{name:24}  {ours_s:6.3f}  {peer_s:8.3f}  {peer_s / ours_s:5.1f}  {speed:6.0f}", flush=True)


def questions(glove: Path, path: Path, scratch: Path) -> None:
    """Print the seconds for a part of the analogy questions, and the correct answers of both."""
    lines = path.read_text("utf-8").splitlines()
    some = scratch / "questions.txt"
    some.write_text("\n".join(line for i, line in enumerate(lines) if line.startswith(":") or i % EVERY == 0), "utf-8")
    table, theirs = Embeddings.load(glove), KeyedVectors.load_word2vec_format(glove, no_header=True)
    evaluate_analogies(table, some)
    ours_s, total = timed(lambda: evaluate_analogies(table, some).total)
    peer_s, (_, sections) = timed(lambda: theirs.evaluate_word_analogies(str(some)))
    right = len(sections[-1]["correct"])
    asked = total.correct + total.wrong
    print(f"\n{asked} analogy questions: ours {ours_s:.2f} s, gensim {peer_s:.2f} s, ratio {peer_s / ours_s:.1f}")
    print(f"answered rightly: ours {total.correct}, gensim {right}")


def neighbours(rounds: int) -> None:
    """Print the milliseconds for a batch's nearest rows, and their shares of the machine's limits."""
    V, E = TABLE
    host_VE = random_table(V, E)
    unit_VE = jax.jit(unit_rows)(jnp.asarray(host_VE))
    theirs = KeyedVectors(E)
    theirs.add_vectors([str(row) for row in range(V)], host_VE)
    theirs.fill_norms()
    read, flops = read_bytes(), product_flops()
    print(f"\nmemory: {read / 1e9:.1f} GB/s read; products: {flops / 1e9:.0f} Gflop/s (float32, all cores)")
    print(f"{NEIGHBOURS} nearest of {V:,} x {E}   ours ms  gensim ms  ratio  of memory  of products")
    for B in BATCHES:
        query_BE = host_VE[:B]

        def ours(query_BE: np.ndarray = query_BE) -> None:
            jax.block_until_ready(nearest_rows(unit_VE, jnp.asarray(query_BE), NEIGHBOURS))

        def peer() -> None:
            theirs.similar_by_vector(host_VE[0], topn=NEIGHBOURS)

        ours_s, peer_s = in_turn(rounds, ours, peer)
        print(
            f"batch {B:<26} {ours_s * 1e3:7.1f}  {peer_s * B * 1e3:9.1f}  {peer_s * B / ours_s:5.1f}"
            f"  {4 * V * E / ours_s / read:9.0%}  {2 * B * V * E / ours_s / flops:11.0%}",
            flush=True,
        )


def random_table(V: int, E: int) -> np.ndarray:
    """Draw vec_VE in float32 from the standard normal distribution."""
    return np.random.default_rng(0).standard_normal((V, E), dtype=np.float32)


def timed(once: Callable[[], Any]) -> tuple[float, Any]:
    """Time one call; returns its seconds and its result."""
    began = time.perf_counter()
    result = once()
    return time.perf_counter() - began, result


def in_turn(rounds: int, ours: Callable[[], Any], peer: Callable[[], Any]) -> tuple[float, float]:
    """Median seconds of two calls, alternated after one warm-up of each."""
    ours(), peer()
    times = [(timed(ours)[0], timed(peer)[0]) for _ in range(rounds)]
    return statistics.median(t for t, _ in times), statistics.median(t for _, t in times)


def read_bytes(size: int = 10**8) -> float:
    """Bytes a second at which all cores together read a large array, by the fastest of several dot products."""
    part = size // CORES
    x_NS = np.ones((CORES, part), np.float32)
    with ThreadPoolExecutor(CORES) as pool:
        return 4 * part * CORES / best(lambda: list(pool.map(lambda x_S: np.dot(x_S, x_S), x_NS)))


def product_flops(size: int = 2048) -> float:
    """Floating-point operations a second of a large float32 product on all cores."""
    x = jnp.ones((size, size), jnp.float32)
    product = jax.jit(lambda x: x @ x)
    return 2 * size**3 / best(lambda: jax.block_until_ready(product(x)))


def best(once: Callable[[], Any]) -> float:
    """Fewest seconds of several calls after a warm-up."""
    once()
    return min(timed(once)[0] for _ in range(5))


if __name__ == "__main__":
    main()
