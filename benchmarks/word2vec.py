"""Benchmark word2vec against gensim with two workers, alternating on the same corpus: words per second, and quality.

    python benchmarks/word2vec.py corpus.txt --analogies questions-words.txt --pairs wordsim353.tsv simlex999.txt

Needs gensim. Words are runs of a to z, sentences are lines; 100 dimensions, window 5, 5 negatives, minimum count 5,
sample 1e-3, 2 epochs, learning rate 0.025 with linear decay. Analogies use the 20,000 most frequent words; scores are
means and standard errors over the seeds. Speed is the raw words of the text per second of training steps; compilation
and the vocabulary come before. Speed per second of CPU time of all threads is printed too: it is fairer on a busy
machine.

At the end two limits are printed, from this machine's rate of large float32 products and its memory bandwidth: for the
operations of an update (the banded products, or CBOW's sums of neighbours, and three products with the negatives), and
for the bytes of its rows, each read once, and read and written once when its change is added. A worker's rows are a few
MB and may stay in a cache, which is faster than memory. Neither limit bounds an update, but the overhead of its small
operations: products of a few hundred rows reach about half the rate of large ones.
"""

import argparse
import re
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from embeddings import product_flops, read_bytes
from gensim.models import KeyedVectors, Word2Vec

from jaxlm import DataConfig, OptimConfig, RunConfig, Word2vecConfig, WordsConfig
from jaxlm.word2vec.training import VectorJob, prepare

EPOCHS, TOP = 2, 20_000
"""Epochs of training, and words of the analogies."""
LR = 0.025
"""Our learning rate, gensim's default."""
SETTINGS: dict[str, dict[str, Any]] = {"skip-gram": {}, "cbow": {"shared_negatives": 16, "blocks": 8}}
"""Our settings, as in configs/word2vec_*.py."""


Outcome = tuple[KeyedVectors, np.ndarray]
"""Vectors, and words per second of wall time and of CPU time."""


def clocks() -> np.ndarray:
    """Seconds of wall time and of this process's CPU time."""
    return np.array([time.perf_counter(), time.process_time()])


def gensim_run(sentences: list[list[str]], predict: str, raw_words: int, seed: int) -> Outcome:
    """Train gensim's vectors."""
    model = Word2Vec(
        vector_size=100, window=5, negative=5, min_count=5, sample=1e-3, sg=int(predict == "skip-gram"), workers=2,
        seed=seed,
    )  # fmt: skip
    model.build_vocab(sentences)
    began = clocks()
    model.train(sentences, total_examples=model.corpus_count, epochs=EPOCHS)
    return model.wv, EPOCHS * raw_words / (clocks() - began)


def our_job(path: Path, seed: int, settings: dict[str, Any]) -> VectorJob:
    """Prepare our training."""
    config = RunConfig(
        model=Word2vecConfig(**settings),
        data=DataConfig(path=str(path), tokens=WordsConfig(pattern="[a-z]+"), split=(1.0, 0.0, 0.0)),
        optim=OptimConfig(lr=LR, schedule="linear", end_factor=0.004),
        epochs=EPOCHS,
        batch_size=65_536,
        seed=seed,
    )
    job = prepare(config)
    assert isinstance(job, VectorJob)
    return job


def our_run(path: Path, settings: dict[str, Any], raw_words: int, seed: int) -> Outcome:
    """Train our vectors."""
    job = our_job(path, seed, settings)
    steps = job.config.last_step
    state = job.initial_state()
    warm = jax.tree.map(jax.numpy.copy, state)
    for step in range(3):
        warm, _ = job.run_chunk(warm, step, 1)
    began = clocks()
    for step in range(steps):
        state, _ = job.run_chunk(state, step, 1)
    jax.block_until_ready(state)
    speed = EPOCHS * raw_words / (clocks() - began)
    vectors = KeyedVectors(100)
    vectors.add_vectors(list(job.corpus.tokenizer.words), np.asarray(state.params["input"]))
    return vectors, speed


def costs(config: Word2vecConfig) -> tuple[int, int]:
    """Costs of an update: floating-point operations, and bytes of rows read and written."""
    N, W, E, M = config.update_words, config.window, config.d_embed, config.shared_negatives
    wide = config.blocks * (config.span + 2 * W)
    if config.predict == "skip-gram":
        flops, rows = 3 * 2 * N * (config.span + 2 * W) * E, N + wide + M
    else:
        flops, rows = 2 * 2 * N * 2 * W * E, N + (N + 2 * W) + M
    return flops + 3 * 2 * N * M * E, 3 * 4 * E * rows


def print_limits(job: VectorJob, speed: float, raw_words: int) -> None:
    """Print the share that `speed` (raw words per second) is of the limits by the products and by the rows alone."""
    reader, config = job.readers["train"], job.model.config
    batches = [reader.worker_batch(step, worker)[0] for step in range(reader.steps) for worker in range(config.workers)]
    updates = sum(int(batch.updates) for batch in batches) / raw_words
    flops, moved = (updates * cost for cost in costs(config))
    peak, rate = product_flops(), read_bytes()
    print(
        f"{config.predict}: a raw word takes {flops / 1e3:.1f} kflop and {moved / 1e3:.2f} kB of rows; at "
        f"{peak / 1e9:.0f} Gflop/s and {rate / 1e9:.1f} GB/s the limits are {peak / flops / 1e3:,.0f} k and "
        f"{rate / moved / 1e3:,.0f} k words/s: ours is at {speed * flops / peak:.0%} and {speed * moved / rate:.0%}"
    )


def quality(vectors: KeyedVectors, analogies: Path, pairs: list[Path]) -> list[float]:
    """Spearman's correlation for each file of pairs, then the accuracy on analogies."""
    spearman = [vectors.evaluate_word_pairs(str(path))[1][0] for path in pairs]
    return [*spearman, analogy_accuracy(vectors, analogies)]


def analogy_accuracy(vectors: KeyedVectors, path: Path) -> float:
    """Accuracy as by vectors.evaluate_word_analogies(path, restrict_vocab=20_000), in blocks and so in seconds."""
    unit_VE = vectors.vectors[:TOP] / np.linalg.norm(vectors.vectors[:TOP], axis=1, keepdims=True)
    known = {word: place for place, word in enumerate(vectors.index_to_key[:TOP])}
    lines = [line.lower().split() for line in path.read_text("utf-8").splitlines() if not line.startswith(":")]
    question_Q4 = np.array([[known[word] for word in words] for words in lines if all(w in known for w in words)])
    right = 0
    for block in np.array_split(question_Q4, -(-len(question_Q4) // 1000)):
        a, b, c, d = block.T
        score_QV = (unit_VE[b] - unit_VE[a] + unit_VE[c]) @ unit_VE.T
        np.put_along_axis(score_QV, block[:, :3], -np.inf, axis=1)
        right += int((score_QV.argmax(1) == d).sum())
    return right / len(question_Q4)


def print_summary(name: str, rows: list[list[float]], heads: list[str]) -> np.ndarray:
    """Print median speeds and mean qualities over the seeds; returns rows as an array."""
    row_SR = np.array(rows)
    errors_R = row_SR.std(0, ddof=1) / np.sqrt(len(rows)) if len(rows) > 1 else np.zeros(row_SR.shape[1])
    cells = [
        f"{head} {mean:.4f} ± {error:.4f}"
        for head, mean, error in zip(heads, row_SR.mean(0)[2:], errors_R[2:], strict=True)
    ]
    speed, per_cpu = np.median(row_SR[:, :2], axis=0) / 1e3
    print(f"{name:17s} {speed:5.0f} k words/s, {per_cpu:5.0f} k a CPU second   {'   '.join(cells)}", flush=True)
    return row_SR


def main() -> None:
    """Train both for every seed in alternation, and print speeds, qualities and limits."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--analogies", type=Path, required=True)
    parser.add_argument("--pairs", type=Path, nargs="+", required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--predict", nargs="+", default=["skip-gram", "cbow"], choices=list(SETTINGS))
    parser.add_argument("--set", nargs="*", default=[], help="settings of ours, as in shared_negatives=16")
    args = parser.parse_args()
    settings = {name: int(value) for name, _, value in (pair.partition("=") for pair in args.set)}
    lines = args.corpus.read_text("utf-8").lower().split("\n")
    sentences = [words for line in lines if (words := re.findall("[a-z]+", line))]
    raw_words = sum(map(len, sentences))
    heads = [*(path.stem for path in args.pairs), "analogies"]
    for predict in args.predict:
        rows: dict[str, list[list[float]]] = {"gensim": [], "ours": []}
        chosen = {"predict": predict, **SETTINGS[predict], **settings}
        runs: dict[str, Callable[[int], Outcome]] = {
            "gensim": partial(gensim_run, sentences, predict, raw_words),
            "ours": partial(our_run, args.corpus, chosen, raw_words),
        }
        for seed in range(1, args.seeds + 1):
            for name, run in runs.items():
                vectors, speed = run(seed)
                rows[name].append([*speed, *quality(vectors, args.analogies, args.pairs)])
                print(predict, seed, name, " ".join(f"{number:.5g}" for number in rows[name][-1]), flush=True)
        table = {name: print_summary(f"{predict} {name}", rows[name], heads) for name in rows}
        for column, what in enumerate(("the clock", "CPU time")):
            ratio_S = table["ours"][:, column] / table["gensim"][:, column]
            low, high = ratio_S.min(), ratio_S.max()
            print(f"{predict}: ours is {np.median(ratio_S):.2f} times as fast by {what} ({low:.2f} to {high:.2f})")
        job = our_job(args.corpus, 1, chosen)
        print_limits(job, float(np.median(table["ours"][:, 0])), raw_words)


if __name__ == "__main__":
    main()
