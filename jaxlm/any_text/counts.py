"""The counts that a trained model has to beat: interpolated Kneser-Ney of the order that predicts dev best."""

import dataclasses
from typing import Any

from jaxlm.config import CountsConfig, RunConfig
from jaxlm.data.corpus import Corpus
from jaxlm.data.dataset import Dataset
from jaxlm.inference.evaluation import Evaluator
from jaxlm.models.counts import CountModel
from jaxlm.training.setup import some_rows

ORDERS = (2, 3, 4, 5, 6, 7, 8, 10, 12)
"""Orders that are tried, until one is worse than the one before it."""
ROWS = 100_000
"""Predictions of dev by which orders are compared, at most."""


@dataclasses.dataclass(frozen=True)
class Counts:
    """Kneser-Ney of the best order."""

    config: CountsConfig
    dev: float
    """Its dev loss in nats per token."""


def best_counts(config: RunConfig, corpus: Corpus) -> Counts:
    """Count n-grams of rising length until dev is predicted worse; returns the best order and its loss on all of dev.

    A text without dev is scored on train, which the longest n-grams predict best: it gets 5-grams.
    """
    best: tuple[float, Any] | None = None
    if not corpus.size("dev"):
        return Counts(CountsConfig(order=5, smoothing="kneser-ney"), float("inf"))
    for order in ORDERS:
        counts = CountsConfig(order=order, smoothing="kneser-ney", vocab_size=corpus.tokenizer.vocab_size)
        model: CountModel = counts.build()
        start, end = corpus.bounds["train"]
        params, _ = model.fit(corpus.tokens_N[start:end], corpus.age_N[start:end])
        data = dataclasses.replace(config.data, example="window", max_length=256)
        dataset = Dataset(
            dataclasses.replace(config, data=data), corpus, context=model.context, max_length=model.max_length
        )
        evaluate = Evaluator(model, dataset, corpus.tokenizer.bytes_of_token)
        loss = evaluate(params, some_rows(dataset.rows["dev"], ROWS)).nats_per_token
        assert loss is not None  # every token of the vocabulary has some probability
        if best is not None and loss >= best[0]:
            break
        best = loss, (counts, evaluate, params, dataset)
    assert best is not None
    counts, evaluate, params, dataset = best[1]
    dev = evaluate(params, dataset.rows["dev"]).nats_per_token
    return Counts(dataclasses.replace(counts, vocab_size=None), dev)
