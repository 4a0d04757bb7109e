"""Text to lists of words, block by block, and the vocabulary that is counted in them.

What counts and encodes takes lists of any tokens, white space included, with END between sentences.
"""

import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from jaxlm.config import WordsConfig
from jaxlm.errors import UserError, near_path
from jaxlm.tokenizer import WordTokenizer

BLOCK_BYTES = 2**22
"""Read at once; more than one block is never in memory."""
END = ""
"""Stands in a list of tokens where a sentence ends: no token is empty."""
PUNCTUATION = r"[^\w\s]"


def read_blocks(path: Path, setting: str, digest: "hashlib._Hash | None" = None) -> Iterator[str]:
    """A UTF-8 file as blocks of whole lines (of a line longer than a block, of whole words), LF at line ends.

    `digest` is fed the file's bytes. Raises UserError naming the setting.
    """
    try:
        with path.open("rb") as file:
            rest, offset = b"", 0
            while raw := file.read(BLOCK_BYTES):
                if digest is not None:
                    digest.update(raw)
                if offset == 0 and b"\0" in raw[:65536]:
                    raise UserError(f"{setting} wants a UTF-8 text file, got the binary file {str(path)!r}")
                raw = rest + raw
                cut = max(raw.rfind(b"\n"), -1) + 1 or raw.rfind(b" ") + 1
                if cut:
                    yield _decode(raw[:cut], offset, path, setting)
                    offset += cut
                rest = raw[cut:]
            if rest:
                yield _decode(rest, offset, path, setting)
    except FileNotFoundError:
        raise UserError(f"{setting} {str(path)!r} does not exist{near_path(path)}") from None
    except IsADirectoryError:
        raise UserError(f"{setting} wants a text file, got the directory {str(path)!r}") from None
    except OSError as error:
        raise UserError(f"{setting} {str(path)!r} cannot be read: {error.strerror}") from error


def _decode(raw: bytes, offset: int, path: Path, setting: str) -> str:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{setting} wants UTF-8, got byte 0x{raw[error.start]:02x} at offset {offset + error.start} of "
            f"{str(path)!r}; convert it with: iconv -f latin1 -t utf-8"
        ) from None
    return text.removeprefix("\ufeff") if offset == 0 else text


def token_pattern(config: WordsConfig) -> str:
    """The regular expression whose matches are the words of a text."""
    return config.pattern if config.punctuation == "drop" else f"{config.pattern}|{PUNCTUATION}"


def split_words(
    blocks: Iterable[str], pattern: str, lower: bool, lines: bool, phrases: Iterable[tuple[str, str]] = ()
) -> Iterator[list[str]]:
    """The words of each block of text, END at the end of each line (or, where lines are not sentences, of none)."""
    find = re.compile(f"({pattern})|\n" if lines else f"({pattern})").findall
    joined = {pair: "_".join(pair) for pair in phrases}
    for block in blocks:
        tokens = find(block.lower() if lower else block)
        yield join_phrases(tokens, joined) if joined else tokens


def join_phrases(tokens: list[str], joined: dict[tuple[str, str], str]) -> list[str]:
    """Tokens with pairs put together, from left to right: a word that was joined is not joined again."""
    result: list[str] = []
    before: str | None = None
    for token in tokens:
        pair = None if before is None else joined.get((before, token))
        if pair is None:
            result.append(token)
            before = token
        else:
            result[-1] = pair
            before = None
    return result


def count_tokens(blocks: Iterable[list[str]]) -> Counter[str]:
    """How often each token occurs."""
    counts: Counter[str] = Counter()
    for tokens in blocks:
        counts.update(tokens)
    counts.pop(END, None)
    return counts


def frequent(counts: Counter[str], min_count: int, max_vocab: int | None) -> list[tuple[str, int]]:
    """The words that stay and their counts, the most frequent first, equally frequent ones in order of code points."""
    kept = [(word, count) for word, count in counts.items() if count >= min_count]
    kept.sort(key=lambda item: (-item[1], item[0]))
    return kept[:max_vocab]


def find_phrases(
    blocks: Iterable[list[str]], counts: Counter[str], min_count: int, threshold: float, discount: float
) -> tuple[tuple[str, str], ...]:
    """Pairs a b of adjacent words of a sentence whose score is above the threshold, sorted.

    score(a, b) = (count(a b) - discount) / (count(a) count(b)) * N, with N the words of the text (Mikolov et al. 2013b,
    equation 6, and its program, which multiplies by N). Only words that occur min_count times are joined.
    """
    total = sum(counts.values())
    pairs: Counter[tuple[str, str]] = Counter()
    frequent_words = {word for word, count in counts.items() if count >= min_count}
    for tokens in blocks:
        kept = [token if token in frequent_words else END for token in tokens]
        pairs.update(itertools.pairwise(kept))
    return tuple(
        sorted(
            (first, second)
            for (first, second), count in pairs.items()
            if first != END
            and second != END
            and (count - discount) / (counts[first] * counts[second]) * total > threshold
        )
    )


def encode(tokens: list[str], token_of: dict[str, int]) -> np.ndarray:
    """The numbers of tokens, (N,) int32: words count from 1, 0 ends a sentence, what has no number is left out."""
    get = token_of.get
    id_N = np.array([get(token, -1) for token in tokens], np.int32)
    return id_N[id_N >= 0]


def read_vocabulary(path: Path, setting: str, config: WordsConfig, lines: bool) -> tuple[WordTokenizer, int]:
    """The vocabulary of a text, and how many words the text has, rare ones counted.

    Raises UserError where the file cannot be used or fewer than two words stay.
    """
    pattern = token_pattern(config)

    def words(phrases: Iterable[tuple[str, str]] = ()) -> Iterator[list[str]]:
        return split_words(read_blocks(path, setting), pattern, config.lower, lines, phrases)

    counts = count_tokens(words())
    total = sum(counts.values())
    phrases: tuple[tuple[str, str], ...] = ()
    if config.phrases is not None:
        phrases = find_phrases(words(), counts, config.min_count, config.phrases, config.phrase_discount)
        counts = count_tokens(words(phrases))
    kept = frequent(counts, config.min_count, config.max_vocab)
    if len(kept) < 2:
        raise UserError(
            f"{setting} wants a text in which at least two words occur {config.min_count} times "
            f"(model.words.min_count), got {len(kept)} of {len(counts):,} different words in {str(path)!r}"
        )
    tokenizer = WordTokenizer(
        tuple(word for word, _ in kept), tuple(count for _, count in kept), pattern, config.lower, phrases
    )
    return tokenizer, total
