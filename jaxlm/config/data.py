"""Settings of the data: where text comes from and how it becomes examples."""

import dataclasses
from typing import Literal

from jaxlm.config import check
from jaxlm.config.settings import Settings
from jaxlm.errors import UserError


@dataclasses.dataclass(frozen=True)
class DataConfig(Settings, group="data."):
    """Where the text comes from and how it becomes examples."""

    path: str | None = None
    """A UTF-8 text file. None: the named set."""
    name: Literal["ssa_2017", "makemore", "tinyshakespeare"] = "ssa_2017"
    """A named set: ssa_2017 comes with the package, the others are downloaded once."""
    kind: Literal["lines", "stream", "dialogues"] = "lines"
    """lines: one example a line. stream: running text.
    dialogues: one example for all lines up to a blank one, each a turn that begins with its speaker's label."""
    labels: tuple[str, str] = ("human", "network")
    """dialogues: the labels of who asks and who answers; ": " follows them."""
    tokens: Literal["characters", "rean"] = "characters"
    """characters: one token each.
    rean: words with the white space after them, other characters alone, unknown words in bytes.
    word2vec finds its words by model.words with characters; with rean these tokens are its words."""
    min_count: int = 2
    """rean: how often train has a word at least; the rarer ones are spelled in bytes."""
    vocab_limit: int | None = None
    """rean: words at most, the most frequent. None: any number."""
    example: Literal["window", "sequence"] = "window"
    """What one row of a batch is. window: a context and its next token.
    sequence: a whole line, or a stretch of a stream, with a prediction at every position."""
    max_length: int = 256
    """Predictions in a sequence at most.
    A longer line is cut into overlapping sequences; a stream's sequences have this length."""
    order: Literal["shuffled", "replacement"] = "shuffled"
    """shuffled: an epoch takes every row of train once, in an order of its own.
    replacement: each row is drawn independently of all others."""
    split: tuple[float, float, float] = (0.8, 0.1, 0.1)
    """Shares of train, dev and test. Lines and dialogues are shuffled first, a stream is cut by position."""
    split_seed: int = 42
    """Seed of that shuffle, by Python's random.Random."""

    def __post_init__(self) -> None:
        check.at_least("data.max_length", self.max_length, 1)
        check.at_least("data.min_count", self.min_count, 1)
        check.at_least("data.vocab_limit", self.vocab_limit, 1)
        if not all(label.strip() and "\n" not in label for label in self.labels) or len(set(self.labels)) < 2:
            raise UserError(f"data.labels wants two different labels of one line, got {self.labels}")
        if any(not 0 <= share <= 1 for share in self.split) or abs(sum(self.split) - 1) > 1e-6:
            shares = " ".join(map(str, self.split))
            raise UserError(f"data.split wants three shares from 0 to 1 that add up to 1, got {shares}")
        if self.split[0] == 0:
            raise UserError("data.split wants a share above 0 for train, got 0")
