"""The loss of a text: by strided windows where a model has positions, in one pass where it has none."""

from typing import NamedTuple

import numpy as np

from jaxlm.data.corpus import Corpus, encode_text
from jaxlm.data.rows import row_table
from jaxlm.errors import UserError
from jaxlm.evaluate.sequences import reads_windows, sequence_evaluator, window_evaluator
from jaxlm.evaluate.single_pass import score_in_one_pass
from jaxlm.inference.evaluation import Score
from jaxlm.runs.loading import Run


class TextResult(NamedTuple):
    """How well a model predicts a text."""

    score: Score
    context: int | None
    """Tokens that a prediction can depend on; None: all before it."""
    stride: int | None
    """Predictions that a window adds to the one before it; None where no window is cut."""


def evaluate_text(run: Run, text: str, stride: int | None = None) -> TextResult:
    """Score each token of a text once, read as the run reads text: lines, running text or dialogues.

    A model with C positions reads windows that begin `stride` predictions apart (None: half of C). The first window of
    a line, dialogue or running text counts all its predictions, each later one its last `stride`, which see at least
    C - stride tokens before them; stride = C cuts the text side by side. Models that predict each token from a window
    of its own, and those without a limit, see all that they can and are read once, whatever the stride. EOS stands
    before the first token. Raises UserError for a stride above C, a text that cannot be encoded, and parameters that
    give no number.
    """
    corpus = encode_text(text, run.tokenizer, run.config.data.kind)
    most = run.model.max_length
    if reads_windows(run):
        score = window_evaluator(run, corpus)(run.params, np.arange(len(corpus.tokens_N)))
        used = None
    elif most is None:
        score, used = score_in_one_pass(run, corpus), None
    else:
        used = _stride_of(run, most, stride)
        score = _strided(run, corpus, min(most, corpus.longest), used)
    if np.isnan(score.nats):
        raise UserError(f"the parameters of run {str(run.path)!r} give a loss that is not a number: train it again")
    return TextResult(score, run.model.context, used)


def _stride_of(run: Run, most: int, stride: int | None) -> int:
    """The stride that a model with positions is given, half of them by default. Raises UserError for one above them."""
    if stride is None:
        return max(1, most // 2)
    if stride > most:
        raise UserError(f"--stride wants at most {most:,}, the context of run {str(run.path)!r}, got {stride:,}")
    return stride


def _strided(run: Run, corpus: Corpus, width: int, stride: int) -> Score:
    rows, ranges = row_table(corpus, width, step=min(stride, width))
    return sequence_evaluator(run, corpus, width, rows)(run.params, np.arange(*ranges["train"]))
