"""Multiple choice by likelihood: the choice that a model finds most likely after a text."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxlm.data.corpus import Corpus
from jaxlm.errors import UserError, naming
from jaxlm.evaluate.questions import Question
from jaxlm.evaluate.sequences import reads_windows, sequence_evaluator, window_evaluator
from jaxlm.inference.generate import tokens_of
from jaxlm.runs.loading import Run


class Accuracy(NamedTuple):
    """A share of questions answered rightly."""

    share: float
    stderr: float | None
    """sqrt(p (1 - p) / (N - 1)), the standard error of the mean of N questions; None of one question."""

    @classmethod
    def of(cls, right: int, N: int) -> "Accuracy":
        """The share of `right` among N."""
        share = right / N
        return cls(share, math.sqrt(share * (1 - share) / (N - 1)) if N > 1 else None)


@dataclasses.dataclass(frozen=True)
class ScoredChoice:
    """A choice under a model."""

    nats: float
    """-log p(choice | text before), infinite where a token of it has probability 0."""
    tokens: int
    characters: int


@dataclasses.dataclass(frozen=True)
class ChoicesResult:
    """How often the choice with the greatest log p is the right one, by three measures of log p."""

    questions: int
    plain: Accuracy
    """log p: acc of lm-evaluation-harness."""
    by_characters: Accuracy
    """log p / characters of the choice: acc_norm of lm-evaluation-harness."""
    by_tokens: Accuracy
    """log p / tokens of the choice."""
    chance: float
    """The share that guessing gives on average."""
    impossible: int
    """Questions all of whose choices have probability 0; they count as answered wrongly."""

    def to_json(self) -> dict[str, Any]:
        """The result as JSON."""
        entry: dict[str, Any] = {"questions": self.questions}
        for name, found in (("acc", self.plain), ("acc_norm", self.by_characters), ("acc_tokens", self.by_tokens)):
            entry |= {name: found.share, f"{name}_stderr": found.stderr}
        return entry | {"chance": self.chance, "impossible": self.impossible}


class _Row(NamedTuple):
    """A text before and a choice after it, as tokens."""

    token_T: np.ndarray
    kept: int
    """Tokens that all choices of the question begin with: those of the text before."""

    @property
    def scored(self) -> int:
        return len(self.token_T) - self.kept


def evaluate_choices(run: Run, questions: Sequence[Question]) -> ChoicesResult:
    """Answer questions by the choice of greatest log p; of equal ones the first is taken. See `score_choices`."""
    scored, N = score_choices(run, questions), len(questions)

    def accuracy(of: Callable[[ScoredChoice], float]) -> Accuracy:
        taken = [min(range(len(choices)), key=lambda i: of(choices[i])) for choices in scored]
        right = zip(taken, possible, questions, strict=True)
        return Accuracy.of(sum(is_possible and i == question.answer for i, is_possible, question in right), N)

    possible = [any(math.isfinite(choice.nats) for choice in choices) for choices in scored]
    return ChoicesResult(
        questions=N,
        plain=accuracy(lambda choice: choice.nats),
        by_characters=accuracy(lambda choice: choice.nats / choice.characters),
        by_tokens=accuracy(lambda choice: choice.nats / choice.tokens),
        chance=sum(1 / len(question.choices) for question in questions) / N,
        impossible=N - sum(possible),
    )


def score_choices(run: Run, questions: Sequence[Question]) -> list[list[ScoredChoice]]:
    """-log p of each question's choices, each the sum over the tokens that its text has after those of the text before.

    A text is encoded whole, EOS before it. Where tokens reach over the end of the text before, they belong to the
    choice, in all choices of the question alike. A text with more tokens than the model has positions keeps its last
    ones. Raises UserError with a question's file and line for a text that cannot be encoded, or a choice that alone has
    more tokens than positions.
    """
    rows = [row for question in questions for row in _rows(run, question)]
    nats = np.split(_nats(run, rows), np.cumsum([row.scored for row in rows])[:-1])
    scored = iter(
        ScoredChoice(float(nats_N.sum(dtype=np.float64)), row.scored, 0) for nats_N, row in zip(nats, rows, strict=True)
    )
    return [
        [dataclasses.replace(next(scored), characters=len(choice)) for choice in question.choices]
        for question in questions
    ]


def _rows(run: Run, question: Question) -> list[_Row]:
    labels = run.config.data.labels if run.config.data.kind == "dialogues" else None
    before, texts = question.texts(labels)
    with naming(question.place):
        before_T, *whole = (tokens_of(run, text) for text in (before, *texts))
        kept = min(_common(before_T, tokens) for tokens in whole)
        most = run.model.max_length
        for number, tokens in enumerate(whole):
            scored = len(tokens) - kept
            if not scored:
                raise UserError(f"choices[{number}] adds no token to the text before it")
            if most is not None and scored > most:
                raise UserError(
                    f"choices[{number}] wants at most {most:,} tokens, the context of run {str(run.path)!r}, got "
                    f"{scored:,}"
                )
    return [_Row(np.array(tokens, np.int32), kept) for tokens in whole]


def _nats(run: Run, rows: Sequence[_Row]) -> np.ndarray:
    """-log p of each row's scored tokens, one row after the other."""
    length_R = np.array([len(row.token_T) for row in rows])
    kept_R = np.array([row.kept for row in rows])
    start_R = np.cumsum(length_R) - length_R
    token_N = np.concatenate([row.token_T for row in rows])
    # EOS stands before each row; only whether a token before is the row's own is read of an age beyond the context
    age_N = np.minimum(np.arange(len(token_N)) - np.repeat(start_R, length_R), np.iinfo(np.uint16).max)
    bounds = {"train": (0, len(token_N)), "dev": (len(token_N),) * 2, "test": (len(token_N),) * 2}
    corpus = Corpus(run.tokenizer, token_N, age_N.astype(np.uint16), bounds, "stream", "", "")
    if reads_windows(run):
        place = [
            np.arange(start + kept, start + size) for start, kept, size in zip(start_R, kept_R, length_R, strict=True)
        ]
        nats_N = window_evaluator(run, corpus).per_token(run.params, np.concatenate(place))
    else:
        most = run.model.max_length
        width = int(length_R.max()) if most is None else min(most, int(length_R.max()))
        cut_R = np.maximum(length_R - width, 0)
        columns = {"first": start_R + cut_R, "length": length_R - cut_R, "skip": np.maximum(kept_R - cut_R, 0)}
        table = {name: column.astype(np.int32) for name, column in columns.items()}
        nats_N = sequence_evaluator(run, corpus, width, table).per_token(run.params, np.arange(len(rows)))
    if np.isnan(nats_N).any():
        raise UserError(f"the parameters of run {str(run.path)!r} give a loss that is not a number: train it again")
    return nats_N


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """Tokens that both begin with."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
