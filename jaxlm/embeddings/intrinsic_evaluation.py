"""Intrinsic evaluation of word vectors: analogy questions, and correlation with human similarity scores of word pairs.

The rules are those of gensim's evaluate_word_analogies and evaluate_word_pairs, so that scores can be compared.
"""

import dataclasses
import math
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from jaxlm.embeddings.embeddings import ANALOGY, Embeddings, Method
from jaxlm.errors import UserError
from jaxlm.text_files import read_pieces

RESTRICT = 300_000
"""Only the first this many words of the table take part by default."""
QUESTIONS_AT_ONCE = 256
"""Questions answered in one compiled call."""
CANDIDATES = 5
"""Answers fetched for each question; the first that is not another spelling of a, b or c counts."""


@dataclasses.dataclass(frozen=True)
class Section:
    """Counts of correct, wrong and skipped questions in one section, or in all of them."""

    name: str
    """Heading of the section."""
    correct: int
    """Questions answered correctly."""
    wrong: int
    """Questions answered wrongly."""
    unknown: int
    """Questions skipped because one of the four words is not in the table."""

    @property
    def accuracy(self) -> float | None:
        """Correct answers as a share of those given; None if no question was answered."""
        return self.correct / (self.correct + self.wrong) if self.correct + self.wrong else None


@dataclasses.dataclass(frozen=True)
class AnalogyScore:
    """Analogy results for each section in the file's order, and for all together."""

    sections: tuple[Section, ...]
    """Results by section."""
    total: Section
    """Results of all sections together."""
    malformed: int
    """Lines left out because they are not four words."""


@dataclasses.dataclass(frozen=True)
class PairCorrelation:
    """Correlation of cosines with human similarity scores, over the pairs whose words are both in the table."""

    spearman: float
    """Spearman's rank correlation."""
    pearson: float
    """Pearson's linear correlation."""
    pairs: int
    """Pairs with both words in the table."""
    unknown: int
    """Pairs left out because one of the two words is not in the table."""
    malformed: int
    """Lines left out because they are not `word TAB word TAB score`; lines that begin with # are not counted."""

    @property
    def unknown_share(self) -> float:
        """Share of all pairs that have an unknown word."""
        return self.unknown / (self.pairs + self.unknown)


def evaluate_analogies(
    embeddings: Embeddings,
    path: str | Path,
    *,
    restrict: int | None = RESTRICT,
    fold_case: bool = True,
    method: Method = "3cosadd",
) -> AnalogyScore:
    """Answer all questions `a b c d` (d is to c as b is to a) of a file in the format of questions-words.txt.

    Only the first `restrict` words are known and can be answers. With fold_case, spellings that differ only in case
    are one word with the vector of the first of them; no spelling of a, b or c is accepted as an answer.
    Raises UserError if the file cannot be read or does not begin with a section (`: name`).
    """
    row_of, first_V = _known(embeddings, restrict, fold_case)
    names: list[str] = []
    questions: list[tuple[int, int, int, int]] = []
    asked_in: list[int] = []
    unknown, malformed = [], 0
    for number, line in enumerate(_lines(path, "questions"), 1):
        if line.startswith(": "):
            names.append(line.lstrip(": ").strip())
            unknown.append(0)
            continue
        if not names:
            raise UserError(f"questions {str(path)!r}, line {number} wants a section first (': name'), got {line!r}")
        words = [row_of.get(word.upper() if fold_case else word) for word in line.split()]
        if len(words) != 4:
            malformed += bool(words)
        elif (a := words[0]) is None or (b := words[1]) is None or (c := words[2]) is None or (d := words[3]) is None:
            unknown[-1] += 1
        else:
            questions.append((a, b, c, d))
            asked_in.append(len(names) - 1)
    right_Q = _answer(embeddings, np.array(questions, np.int32).reshape(-1, 4), first_V, method)
    section_Q = np.array(asked_in, np.int64)
    correct = np.bincount(section_Q[right_Q], minlength=len(names)).tolist()
    asked = np.bincount(section_Q, minlength=len(names)).tolist()
    sections = [Section(n, c, a - c, u) for n, c, a, u in zip(names, correct, asked, unknown, strict=True)]
    total = Section("total", sum(correct), sum(asked) - sum(correct), sum(unknown))
    return AnalogyScore(tuple(sections), total, malformed)


def evaluate_pairs(
    embeddings: Embeddings, path: str | Path, *, restrict: int | None = RESTRICT, fold_case: bool = True
) -> PairCorrelation:
    """Spearman and Pearson correlation of cosines with the scores of a file of lines `word TAB word TAB score`.

    Raises UserError if the file cannot be read, or has fewer than two distinct scores or cosines of known words.
    """
    row_of, _ = _known(embeddings, restrict, fold_case)
    rows: list[tuple[int, int]] = []
    scores: list[float] = []
    unknown = malformed = 0
    for line in _lines(path, "pairs"):
        if line.startswith("#") or not line.strip():
            continue
        fields = line.split("\t")
        score = _number(fields[2]) if len(fields) == 3 else math.nan
        if not math.isfinite(score):
            malformed += 1
            continue
        a, b = (row_of.get(word.upper() if fold_case else word) for word in fields[:2])
        if a is None or b is None:
            unknown += 1
        else:
            rows.append((a, b))
            scores.append(score)
    x_NE, y_NE = np.moveaxis(embeddings.vec_VE[np.array(rows, np.int32).reshape(-1, 2)].astype(np.float64), 1, 0)
    length_N = np.linalg.norm(x_NE, axis=1) * np.linalg.norm(y_NE, axis=1)
    cos_N = (x_NE * y_NE).sum(1) / np.where(length_N > 0, length_N, 1)
    score_N = np.array(scores)
    if len(set(scores)) < 2 or len(set(cos_N.tolist())) < 2:
        raise UserError(
            f"pairs {str(path)!r} wants lines 'word TAB word TAB score' with different scores, got {len(scores)} of "
            f"known words ({unknown} with unknown ones, {malformed} other lines)"
        )
    return PairCorrelation(
        _pearson(ranks(score_N), ranks(cos_N)), _pearson(score_N, cos_N), len(scores), unknown, malformed
    )


def ranks(x_N: np.ndarray) -> np.ndarray:
    """Ranks from 1 in ascending order, ties sharing their mean rank; Spearman's rho is Pearson's r of the ranks."""
    _, value_N, count_U = np.unique(x_N, return_inverse=True, return_counts=True)
    return (np.cumsum(count_U) - (count_U - 1) / 2)[value_N]


def _pearson(x_N: np.ndarray, y_N: np.ndarray) -> float:
    x_N, y_N = x_N - x_N.mean(), y_N - y_N.mean()
    return float(x_N @ y_N / np.sqrt((x_N @ x_N) * (y_N @ y_N)))


def _known(embeddings: Embeddings, restrict: int | None, fold_case: bool) -> tuple[dict[str, int], np.ndarray]:
    """Map each participating word to its row (its first spelling's, if case is folded), and each row to that row."""
    if restrict is not None and restrict < 1:
        raise UserError(f"restrict wants a number of words >= 1, got {restrict}")
    words: Sequence[str] = [unicodedata.normalize("NFC", word) for word in embeddings.words[:restrict]]
    if fold_case:
        words = [word.upper() for word in words]
    row_of: dict[str, int] = {}
    first_V = np.array([row_of.setdefault(word, row) for row, word in enumerate(words)], np.int32)
    return row_of, first_V


def _answer(embeddings: Embeddings, abcd_Q4: np.ndarray, first_V: np.ndarray, method: Method) -> np.ndarray:
    """Answer the questions abcd_Q4, given as rows; returns right_Q, True where the answer is d."""
    unit_VE = embeddings.unit_VE[: len(first_V)]
    right: list[np.ndarray] = []
    for start in range(0, len(abcd_Q4), QUESTIONS_AT_ONCE):
        asked_B4 = abcd_Q4[start : start + QUESTIONS_AT_ONCE]
        padded_B4 = np.pad(asked_B4, ((0, QUESTIONS_AT_ONCE - len(asked_B4)), (0, 0)))
        found = ANALOGY[method](unit_VE, jnp.asarray(padded_B4[:, :3]), CANDIDATES)
        row_BK = np.asarray(found.row_BK)[: len(asked_B4)]
        word_BK = np.where(row_BK >= 0, first_V[row_BK], -1)
        new_BK = (row_BK >= 0) & (word_BK[:, :, None] != asked_B4[:, None, :3]).all(-1)
        last_B = np.maximum((row_BK >= 0).sum(1) - 1, 0)  # where all are spellings of a, b and c, gensim takes the last
        place_B = np.where(new_BK.any(1), new_BK.argmax(1), last_B)
        right.append(word_BK[np.arange(len(place_B)), place_B] == asked_B4[:, 3])
    return np.concatenate(right) if right else np.zeros(0, bool)


def _number(field: str) -> float:
    try:
        return float(field)
    except ValueError:
        return math.nan


def _lines(path: str | Path, what: str) -> Iterator[str]:
    """Iterate over the lines of a UTF-8 text file in normal form NFC, without line ends."""
    return iter(unicodedata.normalize("NFC", "".join(read_pieces(Path(path), what))).split("\n"))
