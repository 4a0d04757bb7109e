"""Text to lists of words, block by block, and the vocabulary that is counted in them.

What counts and encodes takes lists of any tokens, white space included, with END between sentences.
"""

import hashlib
import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np

from jaxlm.config import WordsConfig
from jaxlm.errors import UserError
from jaxlm.text_files import read_pieces
from jaxlm.tokenizers import WordTokenizer
from jaxlm.tokenizers.unicode_words import finder

END = ""
"""Stands in a list of tokens where a sentence ends: no token is empty."""
PUNCTUATION = r"[^\w\s]"
WITHOUT_SPACES = (
    ("[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]", 3.5),
    ("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]", 9.0),
)
"""Scripts that are written without spaces, and more letters than their words have on average: Han and kana; Thai, Lao,
Burmese and Khmer."""
JUDGED = 100_000
"""Different words by which a text is judged to have spaces between its words or none."""
Item = TypeVar("Item", str, tuple[str, str])


def read_blocks(
    path: Path, setting: str, encoding: str = "utf-8", digest: "hashlib._Hash | None" = None
) -> Iterator[str]:
    """A text file as blocks of whole lines (of a line longer than a block, of whole words), LF at line ends.

    More than one block is never in memory. `digest` is fed the file's bytes. Raises UserError naming the setting.
    """
    rest = ""
    for piece in read_pieces(path, setting, encoding, digest):
        text = rest + piece
        cut = text.rfind("\n") + 1 or text.rfind(" ") + 1
        if cut:
            yield text[:cut]
        rest = text[cut:]
    if rest:
        yield rest


def token_pattern(config: WordsConfig) -> str:
    """The regular expression whose matches are the words of a text."""
    return config.pattern if config.punctuation == "drop" else f"{config.pattern}|{PUNCTUATION}"


def split_words(
    blocks: Iterable[str], pattern: str, lower: bool, lines: bool, phrases: Iterable[tuple[str, str]] = ()
) -> Iterator[list[str]]:
    """The words of each block of text, END at the end of each line (or, where lines are not sentences, of none).

    The text is in Unicode's normal form NFC, in which an accent has one spelling, and letters keep their marks.
    """
    find = finder(f"({pattern})|\n" if lines else f"({pattern})")
    joined = {pair: "_".join(pair) for pair in phrases}
    for block in blocks:
        text = unicodedata.normalize("NFC", block)
        tokens = find(text.lower() if lower else text)
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
    if config.pattern == WordsConfig.pattern:
        _refuse_unsegmented(counts, setting)
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


def _refuse_unsegmented(counts: Counter[str], setting: str) -> None:
    """Raise UserError if most words are of a script without spaces, and far too long: whole phrases."""
    judged = [(word, count) for word, count in itertools.islice(counts.items(), JUDGED) if word[0].isalnum()]
    total = sum(count for _, count in judged)
    for script, most in WITHOUT_SPACES:
        begins_with = re.compile(script).match
        found = [(word, count) for word, count in judged if not word.isascii() and begins_with(word)]
        number = sum(count for _, count in found)
        if 2 * number > total and sum(len(word) * count for word, count in found) > most * number:
            raise UserError(
                f"{setting} wants spaces between words, got a text without, as in {found[0][0][:20]!r}: put them there "
                "first by a segmenter (jieba for Chinese, MeCab for Japanese, PyThaiNLP for Thai), or take each "
                r"character for a word with --data.tokens.pattern '\w'"
            )
