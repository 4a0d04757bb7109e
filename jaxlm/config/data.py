"""Settings of the data: where text comes from and how it becomes examples."""

import codecs
import dataclasses
import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from jaxlm.config import check
from jaxlm.config.settings import Settings, expand_home, refuse_unused
from jaxlm.config.tokens import CharactersConfig, TokensConfig
from jaxlm.errors import UserError

if TYPE_CHECKING:
    from jaxlm.tokenizers import Tokenizer


@dataclasses.dataclass(frozen=True)
class PreparedTokensConfig(TokensConfig):
    """The tokens of shards, which were chosen when the shards were made (python -m jaxlm.data prepare)."""

    def build(self, whole: str, train: Sequence[str]) -> "Tokenizer":
        """Raises UserError: a text that is read into memory wants tokens of its own."""
        raise UserError(
            "data.tokens PreparedTokensConfig() wants data.path to be a directory of shards, got a text file: take "
            "CharactersConfig()"
        )


@dataclasses.dataclass(frozen=True)
class PrepareConfig(Settings):
    """How text files become token shards: all that decides the bytes of a shard, beside the files and their order."""

    tokens: str = "bpe"
    """bytes, bpe, characters, rean; a run or its tokenizer.json; Hugging Face's, or a directory with GPT-2's two files.
    bpe and the words of rean are trained on a sample of train; characters takes those of all documents."""
    vocab_size: int = 32_768
    """bpe: tokens at most."""
    document: Literal["file", "blank-lines", "lines"] = "file"
    """A document of a .txt file: all of it, the text between two blank lines, or a line."""
    field: str = "text"
    """The field, or column, of .jsonl and .parquet files that has a document's text."""
    held_out: float = 0.01
    """Share of the documents that become the dev split, by a hash of each document's beginning."""
    shard_tokens: int = 100_000_000
    """Tokens in a shard; the last shard of a split has what is left."""

    def __post_init__(self) -> None:
        check.below("held_out", self.held_out, 0, 1)
        check.between("vocab_size", self.vocab_size, 257, 2**24)
        if self.tokens != "bpe":
            refuse_unused(self, ("vocab_size",), f"tokens {self.tokens}", "tokens bpe")
        check.at_least("shard_tokens", self.shard_tokens, 1)


@dataclasses.dataclass(frozen=True)
class DataConfig(Settings, group="data."):
    """Where the text comes from and how it becomes examples."""

    path: str | None = None
    """A text file, or a directory of token shards (python -m jaxlm.data prepare). None: the named set."""
    encoding: str = "utf-8"
    """The encoding of data.path by Python's name, as utf-8, utf-16, cp1252, gb18030, shift_jis, koi8-r."""
    name: Literal["ssa_2017", "makemore", "tinyshakespeare"] = "ssa_2017"
    """A named set: ssa_2017 comes with the package, the others are downloaded once."""
    kind: Literal["lines", "stream", "dialogues"] = "lines"
    """lines: one example a line. stream: running text.
    dialogues: one example for all lines up to a blank one, each a turn that begins with its speaker's label."""
    labels: tuple[str, str] = ("human", "network")
    """dialogues: the labels of the user's turns and of the model's; ": " follows them."""
    tokens: TokensConfig = dataclasses.field(default_factory=CharactersConfig)
    """CharactersConfig(), BytesConfig(), BpeConfig(...), ReanTokensConfig(...), or WordsConfig(...) for word2vec.
    On the command line characters, bytes, bpe, rean or words."""
    example: Literal["window", "sequence"] = "window"
    """The row of a batch. window: a context and its next token.
    sequence: a whole line, or a stretch of a stream, with a prediction at every position."""
    max_length: int = 256
    """Predictions in a sequence at most.
    A longer line is cut into overlapping sequences; a stream's sequences have this length."""
    order: Literal["shuffled", "replacement"] = "shuffled"
    """shuffled: an epoch takes every row of train once, in an order of its own.
    replacement: each row is drawn independently of all others."""
    overlap: bool = False
    """sequence: whether longer lines are cut into sequences that overlap by half, of which each prediction counts once.
    Every prediction but the first then sees at least half a sequence, and losses cost twice as much."""
    split: tuple[float, float, float] = (0.8, 0.1, 0.1)
    """Shares of train, dev and test. Lines and dialogues are shuffled first, a stream is cut by position."""
    split_seed: int = 42
    """Seed of that shuffle, by Python's random.Random."""

    def __post_init__(self) -> None:
        expand_home(self, "path")
        _check_encoding(self.encoding)
        check.at_least("data.max_length", self.max_length, 1)
        if not all(label.strip() and "\n" not in label for label in self.labels) or len(set(self.labels)) < 2:
            raise UserError(f"data.labels wants two different labels of one line, got {self.labels}")
        if any(not 0 <= share <= 1 for share in self.split) or abs(sum(self.split) - 1) > 1e-6:
            shares = " ".join(map(str, self.split))
            raise UserError(f"data.split wants three shares from 0 to 1 that add up to 1, got {shares}")
        if self.split[0] == 0:
            raise UserError("data.split wants a share above 0 for train, got 0")
        if self.path is None:
            refuse_unused(self, ("encoding",), "data.path None", "data.path FILE")
        else:
            refuse_unused(self, ("name",), f"data.path {self.path!r}", "data.path None")
        if self.kind != "dialogues":
            refuse_unused(self, ("labels",), f"data.kind {self.kind}", "data.kind dialogues")
        if self.example != "sequence":
            refuse_unused(self, ("max_length", "overlap"), f"data.example {self.example}", "data.example sequence")


def _check_encoding(name: str) -> None:
    """Raise UserError unless Python decodes text by this name."""
    try:
        "".encode(name)  # refuses codecs that are not of text, as hex
        codecs.getincrementaldecoder(name)
    except (LookupError, ValueError):
        from encodings.aliases import aliases

        spelled = name.lower().replace("-", "_").replace(" ", "_")
        names = {name for pair in aliases.items() if not pair[1].endswith("_codec") for name in pair} - {spelled}
        near = difflib.get_close_matches(spelled, sorted(names), n=1)
        hint = f"did you mean {near[0]!r}?" if near else "as utf-8, utf-16, cp1252, gb18030, shift_jis, koi8-r"
        raise UserError(f"data.encoding wants an encoding that Python knows, got {name!r} ({hint})") from None
