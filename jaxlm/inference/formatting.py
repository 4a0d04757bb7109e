"""Results as people read them in a terminal: text in, text out."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from jaxlm.inference.evaluation import Score
from jaxlm.inference.explain import ExplainedToken, Explanation
from jaxlm.inference.novelty import Nearest, Seen
from jaxlm.inference.score import TextScore
from jaxlm.inference.speculative_loop import Tally
from jaxlm.runs.metrics import NATS_PER_BIT

SHOWN_ALTERNATIVES, LONGEST_CELL = 3, 24
"""Most likely tokens shown beside each one, and the most characters of a context or line."""
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


def draft_line(tally: Tally, draft: str, run: str) -> str:
    """The share of a draft's tokens that stayed, and the tokens for each pass of the run."""
    if tally.acceptance is None or tally.tokens_per_pass is None:
        return f"draft {draft}: no tokens proposed"
    return (
        f"draft {draft}: {tally.acceptance:.1%} of {int(tally.proposed_B.sum()):,} proposed tokens stayed, "
        f"{tally.tokens_per_pass:.2f} tokens a pass of {run}"
    )


def draft_json(tally: Tally) -> dict[str, Any]:
    """The counts, the share of proposed tokens that stayed and the tokens for each pass; null where there are none."""
    return {
        "proposed": int(tally.proposed_B.sum()),
        "accepted": int(tally.accepted_B.sum()),
        "passes": int(tally.passes_B.sum()),
        "tokens": int(tally.made_B.sum()),
        "acceptance": tally.acceptance,
        "tokens_per_pass": tally.tokens_per_pass,
    }


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


def explained(explanation: Explanation, columns: int) -> str:
    """Each token with its probability, rank and alternatives, and what train has of its context.

    Rows that are wider than the terminal's columns have the latter on a line of its own.
    """
    head = ("token", "p", "rank", f"most likely {SHOWN_ALTERNATIVES}", "order")
    rows = [head, *map(_explained_cells, explanation.tokens)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    left = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows]
    right = ["" if explanation.missing else "longest context in train", *map(_matched, explanation.tokens)]
    between = "  " if max(map(len, left)) + 2 + max(map(len, right)) <= columns else "\n    "
    cut = str.rstrip if explanation.missing or between != "  " else str
    lines = [f"{cut(one)}{between}{two}".rstrip() for one, two in zip(left, right, strict=True)]
    about = (
        f"train is not shown: {explanation.missing}"
        if explanation.missing
        else "order: of the smallest n-gram that has the token as most frequent, by train; -: none has"
    )
    return "\n".join([*lines, score_line(explanation.total), about])


def explanation_json(explanation: Explanation) -> dict[str, Any]:
    """The explanation; null where p is 0, where train was not read, or where no order suffices."""
    tokens = [
        {
            "token": token.token,
            "logprob": -token.nats if token.nats != float("inf") else None,
            "probability": _probability(token.nats),
            "rank": token.rank,
            "alternatives": [{"token": other, "probability": p} for other, p in token.alternatives],
            "train": token.match and dataclasses.asdict(token.match),
            "order": token.order,
        }
        for token in explanation.tokens
    ]
    return {**explanation.total.to_json(), "missing": explanation.missing or None, "explained": tokens}


def _explained_cells(token: ExplainedToken) -> tuple[str, ...]:
    others = ", ".join(f"{other} {p:.3f}".replace(" 0.", " .") for other, p in token.alternatives[:SHOWN_ALTERNATIVES])
    order = "-" if token.order is None else str(token.order)
    return token.token, f"{_probability(token.nats):.4f}", str(token.rank), others, order


def _matched(token: ExplainedToken) -> str:
    if token.match is None:
        return ""
    if not token.match.length:
        return "none"
    context = token.match.context
    text = "".join(char if char.isprintable() else repr(char)[1:-1] for char in token.match.text)
    if len(context) > LONGEST_CELL:
        context = f"…{context[1 - LONGEST_CELL :]}"
    if len(text) > LONGEST_CELL:
        text = f"{text[: LONGEST_CELL - 1]}…"
    place = "" if token.match.line is None else f", line {token.match.line:,}"
    return f"{context}  {token.match.count:,}x{place}: {text}"


def _probability(nats: float) -> float:
    return 2.0 ** (-nats / NATS_PER_BIT)
