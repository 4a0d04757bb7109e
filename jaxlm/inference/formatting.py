"""Results as people read them in a terminal: text in, text out."""

from collections.abc import Sequence
from typing import Any

from jaxlm.inference.evaluation import Score
from jaxlm.inference.novelty import Nearest, Seen
from jaxlm.inference.score import TextScore
from jaxlm.runs.metrics import NATS_PER_BIT

TITLES: dict[Seen, str] = {"train": "in train", "dev+test": "in dev or test", "new": "new"}


def sorted_samples(texts: Sequence[str], seen: Sequence[Seen]) -> str:
    """Samples under a heading each for those in train, in dev or test, and new."""
    blocks = []
    for kind, title in TITLES.items():
        group = [text for text, where in zip(texts, seen, strict=True) if where == kind]
        blocks.append(f"{len(group)} {title}:" + "".join(f"\n  {text}" for text in group))
    return "\n".join(blocks)


def samples_with_nearest(texts: Sequence[str], seen: Sequence[Seen], nearest: Sequence[Nearest]) -> str:
    """The same with each sample's nearest training line and its distance, and the rate of exact copies."""
    width = max(map(len, texts), default=0)
    rows = [f"{text:<{width}}  {n.distance:>3}  {n.line}" for text, n in zip(texts, nearest, strict=True)]
    copies = list(seen).count("train")
    return (
        f"sample, edit distance, nearest training line\n{sorted_samples(rows, seen)}\n"
        f"exact copies of training lines: {copies:,} of {len(texts):,} ({copies / len(texts):.1%})"
    )


def side_by_side(left: Sequence[str], right: Sequence[str], titles: tuple[str, str]) -> str:
    """Two lists of texts in columns; texts of several lines stand under each other instead."""
    if any("\n" in text for text in (*left, *right)):
        return "\n".join(f"--- {t}\n{text}" for t, texts in zip(titles, (left, right), strict=True) for text in texts)
    width = min(60, max(map(len, (*left, titles[0]))))
    rows = [titles, ("-" * width, "-" * len(titles[1])), *zip(left, right, strict=True)]
    return "\n".join(f"{a if len(a) <= width else a[: width - 1] + '…':<{width}}  {b}".rstrip() for a, b in rows)


def score_line(score: Score) -> str:
    """Nats per token, bits per byte and perplexity in a line."""
    if score.impossible:
        return f"{score.impossible:,} of {score.tokens:,} tokens have probability 0, so the loss is infinite"
    if not score.tokens:
        return "no tokens"
    perplexity = "inf" if score.perplexity is None else f"{score.perplexity:.3f}"
    return (
        f"{score.nats_per_token:.4f} nats/token, {score.bits_per_byte:.4f} bits/byte, "
        f"perplexity {perplexity} ({score.tokens:,} tokens, {score.bytes:,} bytes)"
    )


def term_by_term(scored: TextScore) -> str:
    """Each token with its probability, log-probability in nats, and cost in bits."""
    width = max(map(len, ("token", *scored.tokens)))
    rows = [f"{'token':<{width}}  probability    log p      bits"]
    for token, nats in zip(scored.tokens, scored.nats.tolist(), strict=True):
        rows.append(f"{token:<{width}}  {_probability(nats):>11.6f}  {-nats:>7.4f}  {nats / NATS_PER_BIT:>8.4f}")
    return "\n".join([*rows, score_line(scored.total)])


def score_json(scored: TextScore) -> dict[str, Any]:
    """The score with each token's log-probability in nats; null where the probability is 0."""
    pairs = zip(scored.tokens, scored.nats.tolist(), strict=True)
    tokens = [{"token": token, "logprob": -nats if nats != float("inf") else None} for token, nats in pairs]
    return {**scored.total.to_json(), "token_logprobs": tokens}


def _probability(nats: float) -> float:
    return 2.0 ** (-nats / NATS_PER_BIT)
