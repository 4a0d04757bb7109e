"""Rows of a text under a run's model: windows of its context, or sequences of a given table."""

import numpy as np

from jaxlm.config import DataConfig, RunConfig
from jaxlm.data.corpus import Corpus
from jaxlm.data.dataset import Dataset
from jaxlm.inference.evaluation import Evaluator
from jaxlm.runs.loading import Run


def reads_windows(run: Run) -> bool:
    """True if the model predicts each token from a window of its whole context, EOS before the start of a text."""
    return run.model.context is not None and (run.model.max_length is None or run.config.data.example == "window")


def window_evaluator(run: Run, corpus: Corpus) -> Evaluator:
    """An evaluator whose row numbers are positions of the text, each predicted from the model's whole context."""
    return _evaluator(run, corpus, DataConfig(example="window"))


def sequence_evaluator(run: Run, corpus: Corpus, width: int, rows: dict[str, np.ndarray]) -> Evaluator:
    """An evaluator of some rows of a text, columns as `row_table` makes them, of at most `width` predictions each."""
    return _evaluator(run, corpus, DataConfig(example="sequence", kind="stream", max_length=width), rows)


def _evaluator(run: Run, corpus: Corpus, data: DataConfig, rows: dict[str, np.ndarray] | None = None) -> Evaluator:
    model, config = run.model, RunConfig(model=run.config.model, data=data, steps=1, batch_size=1)
    dataset = Dataset(config, corpus, context=model.context, max_length=model.max_length, rows=rows)
    return Evaluator(model, dataset, run.tokenizer.bytes_of_token)
