"""Text to lists of words, block by block, and the vocabulary that is counted in them.

What counts and encodes takes lists of any tokens, white space included, with END between sentences.
"""

import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np

from jaxlm.config import WordsConfig
from jaxlm.errors import UserError, decode_utf8, reading, refuse_binary
from jaxlm.tokenizers import WordTokenizer

BLOCK_BYTES = 2**22
"""Read at once; more than one block is never in memory."""
END = ""
"""Stands in a list of tokens where a sentence ends: no token is empty."""
PUNCTUATION = r"[^\w\s]"
Item = TypeVar("Item", str, tuple[str, str])


def read_blocks(path: Path, setting: str, digest: "hashlib._Hash | None" = None) -> Iterator[str]:
    """A UTF-8 file as blocks of whole lines (of a line longer than a block, of whole words), LF at line ends.

    `digest` is fed the file's bytes. Raises UserError naming the setting.
    """
    with reading(path, setting), path.open("rb") as file:
        rest, offset, line_ends = b"", 0, 0
        while raw := file.read(BLOCK_BYTES):
            if digest is not None:
                digest.update(raw)
            refuse_binary(raw, path, setting)
            raw = rest + raw
            cut = raw.rfind(b"\n") + 1 or raw.rfind(b" ") + 1
            if cut:
                yield decode_utf8(raw[:cut], path, setting, offset, line_ends)
                offset += cut
                line_ends += raw.count(b"\n", 0, cut)
            rest = raw[cut:]
        if rest:
            yield decode_utf8(rest, path, setting, offset, line_ends)


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


def count_tokens(blocks: Iterable[list[str]], limit: int) -> tuple[Counter[str], int]:
    """How often each token occurs, of `limit` tokens at most (see `count`), and how many tokens there are."""
    total = 0

    def tokens() -> Iterator[list[str]]:
        nonlocal total
        for block in blocks:
            kept = [token for token in block if token != END]
            total += len(kept)
            yield kept

    return count(tokens(), limit), total


def count(blocks: Iterable[Iterable[Item]], limit: int) -> Counter[Item]:
    """How often each item occurs, in a table that never holds more than `limit` items and the new ones of a block.

    Where a block leaves more, those that were counted least are dropped: counts up to 1, the next time up to 2, and so
    on, as word2vec's and word2phrase's ReduceVocab does. A dropped item that comes again counts from 0, so that counts
    are too low, never too high; they are exact as long as nothing was dropped.
    """
    counts: Counter[Item] = Counter()
    floor = 0
    for items in blocks:
        counts.update(items)
        while len(counts) > limit:
            floor += 1
            counts = Counter({item: number for item, number in counts.items() if number > floor})
    return counts


def frequent(counts: Counter[str], min_count: int, max_vocab: int | None) -> list[tuple[str, int]]:
    """The words that stay and their counts, the most frequent first, equally frequent ones in order of code points."""
    kept = [(word, count) for word, count in counts.items() if count >= min_count]
    kept.sort(key=lambda item: (-item[1], item[0]))
    return kept[:max_vocab]


def find_phrases(
    blocks: Iterable[list[str]], counts: Counter[str], total: int, config: WordsConfig
) -> tuple[tuple[str, str], ...]:
    """Pairs a b of adjacent words of a sentence whose score is above config.phrases, sorted.

    score(a, b) = (count(a b) - phrase_discount) / (count(a) count(b)) * N, with N = `total` the words of the text
    (Mikolov et al. 2013b, equation 6, and its program, which multiplies by N). Only words that occur min_count times
    are joined; of pairs at most max_counted are kept count of.
    """
    frequent_words = {word for word, number in counts.items() if number >= config.min_count}

    def pairs_of(tokens: list[str]) -> list[tuple[str, str]]:
        kept = [token if token in frequent_words else END for token in tokens]
        return [pair for pair in itertools.pairwise(kept) if END not in pair]

    assert config.phrases is not None
    pairs = count(map(pairs_of, blocks), config.max_counted)
    return tuple(
        sorted(
            (first, second)
            for (first, second), number in pairs.items()
            if (number - config.phrase_discount) / (counts[first] * counts[second]) * total > config.phrases
        )
    )


def encode(tokens: list[str], token_of: dict[str, int]) -> np.ndarray:
    """The numbers of tokens, (N,) int32: words count from 1, 0 ends a sentence, what has no number is left out."""
    get = token_of.get
    id_N = np.array([get(token, -1) for token in tokens], np.int32)
    return id_N[id_N >= 0]


def build_vocabulary(
    read: Callable[[], Iterable[str]], setting: str, config: WordsConfig, lines: bool
) -> tuple[WordTokenizer, int]:
    """The vocabulary of a text, and how many words the text has, rare ones counted.

    `read` gives the text's blocks, from its start at each call (three times for phrases). Raises UserError naming the
    setting where fewer than two words stay.
    """
    pattern = token_pattern(config)

    def words(phrases: Iterable[tuple[str, str]] = ()) -> Iterator[list[str]]:
        return split_words(read(), pattern, config.lower, lines, phrases)

    counts, total = count_tokens(words(), config.max_counted)
    phrases: tuple[tuple[str, str], ...] = ()
    if config.phrases is not None:
        phrases = find_phrases(words(), counts, total, config)
        counts, _ = count_tokens(words(phrases), config.max_counted)
    kept = frequent(counts, config.min_count, config.max_vocab)
    if len(kept) < 2:
        raise UserError(
            f"{setting} wants a text in which at least two words occur {config.min_count} times "
            f"(data.tokens.min_count), got {len(kept)} of {len(counts):,} different words"
        )
    tokenizer = WordTokenizer(
        tuple(word for word, _ in kept), tuple(count for _, count in kept), pattern, config.lower, phrases
    )
    return tokenizer, total
