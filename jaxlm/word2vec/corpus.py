"""A text as numbers of words in memory-mapped files, one for each split, kept in the cache."""

import contextlib
import dataclasses
import errno
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from jaxlm.config import DataConfig, WordsConfig
from jaxlm.data import cache
from jaxlm.data import corpus as corpora
from jaxlm.data.corpus import SPLITS, Corpus
from jaxlm.data.source import cache_dir, locate
from jaxlm.errors import UserError
from jaxlm.text_files import read_pieces
from jaxlm.tokenizers import EOS, ReanTokenizer, WordTokenizer
from jaxlm.tokenizers.rean_tokens import FIRST_WORD, PATTERN
from jaxlm.word2vec.vocabulary import END, build_vocabulary, encode, read_blocks, split_words

MOST_CACHED = 4 * 2**30
"""Bytes of encoded texts in the cache at most, the one in use apart."""
CUTTING = "2"
"""Changes where a text is cut into other words than before, so that what is in the cache is not used."""
ATTEMPTS = 3
"""Times a text is encoded at most, where other processes remove it from the cache."""
MAX_SENTENCE = 1000
"""Tokens of REAN in a sentence at most; windows do not reach over the cut."""
SHORT = 2**16
"""A vocabulary below this is stored in two bytes a word, else in four."""
Entry = tuple[dict[str, Any], dict[str, np.ndarray]]
"""The content of words.json, and each split's id_N."""


@dataclasses.dataclass(frozen=True)
class WordCorpus:
    """The sentences of all splits as numbers of words: word i of the vocabulary is i + 1, and 0 ends a sentence."""

    tokenizer: WordTokenizer
    ids: dict[str, np.ndarray]
    """Each split's id_N, uint16 or int32, memory-mapped."""
    total_words: int
    """Words of the text, rare ones included."""
    data_hash: str
    split_hash: str
    notes: tuple[str, ...] = ()
    """Lines about the text that are logged before training."""

    @property
    def lines(self) -> dict[str, list[str]]:
        """None are kept: nothing is sampled that could be a line of the text."""
        return {}

    def size(self, split: str) -> int:
        """Words of a split, ends of sentences counted."""
        return len(self.ids[split])


def load(config: DataConfig, corpus: Corpus | None = None) -> WordCorpus:
    """The words of a text by data.tokens: WordsConfig's, or REAN's tokens, those of `corpus` where it is at hand.

    Raises UserError naming the setting.
    """
    if isinstance(config.tokens, WordsConfig):
        return read_words(config, config.tokens)
    return of_tokens(corpus or corpora.load(config))


def read_words(config: DataConfig, words: WordsConfig) -> WordCorpus:
    """Count, encode and split the text, or find that done in the cache (without one it is done at each start).

    A sentence belongs to a split by a draw of its own, by data.split and data.split_seed. Text and numbers pass through
    in blocks: in memory are counts alone, of words.max_counted different words (or pairs of words) at most. Raises
    UserError naming the setting.
    """
    path, setting = locate(config)
    settings = json.dumps([dataclasses.asdict(words), config.kind, list(config.split), config.split_seed])
    digest, home = _file_sha256(path, setting, config.encoding), cache_dir()
    key = hashlib.sha256(f"{CUTTING} {digest} {config.encoding} {settings}".encode()).hexdigest()[:32]

    def write(part: Path) -> None:
        _write(part, path, setting, config, words)

    notes: tuple[str, ...] = ()
    try:
        if home is None:
            raise FileNotFoundError(errno.ENOENT, "no home directory is known")
        metadata, ids = _cached(home / "words" / key, write)
    except OSError as error:
        metadata, ids = _uncached(write)
        notes = (f"note: the words of the text cannot be cached: {error.strerror}; they are read anew at each start",)
    tokenizer = WordTokenizer.from_json(metadata["tokenizer"])
    split_hash = hashlib.sha256(settings.encode()).hexdigest()
    return WordCorpus(tokenizer, ids, metadata["total_words"], digest, split_hash, notes)


def _cached(place: Path, write: Callable[[Path], None]) -> Entry:
    """An entry of the cache, written where it is missing. Raises OSError where the cache cannot be used."""
    cache.mark_used(place)
    made, attempts = _open(place), 0
    while made is None and attempts < ATTEMPTS:
        with _new_entry(place) as part:
            write(part)
        made, attempts = _open(place), attempts + 1
    if made is None:
        raise UserError(
            f"the cache {str(place.parent)!r} lost {place.name} while it was read: does another process empty it? "
            "set XDG_CACHE_HOME"
        )
    cache.prune(place.parent, MOST_CACHED, place)
    return made


def _uncached(write: Callable[[Path], None]) -> Entry:
    """An entry in files without a name, which are gone with the process."""
    try:
        with tempfile.TemporaryDirectory(prefix="jaxlm-") as folder:
            write(Path(folder))
            made = _open(Path(folder))
    except OSError as error:
        raise UserError(
            f"the words of the text cannot be stored: {error.strerror}; set XDG_CACHE_HOME or TMPDIR to another folder"
        ) from error
    assert made is not None
    return made


@contextlib.contextmanager
def _new_entry(place: Path) -> Iterator[Path]:
    """A directory to write within; at the end it becomes the entry, unless another process has made that meanwhile."""
    part = None
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=cache.PART, dir=place.parent))
        yield part
        if place.exists() and _open(place) is None:  # files of it were lost
            cache.remove(place)
        if not place.exists():
            part.rename(place)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):  # else another process was faster
            raise
    finally:
        if part is not None:
            shutil.rmtree(part, ignore_errors=True)


def _open(place: Path) -> Entry | None:
    """An entry of the cache: what words.json says, and each split's ids. None where one of its files is not there."""
    try:
        metadata = json.loads((place / "words.json").read_text("utf-8"))
        return metadata, {split: _map(place / f"{split}.npy") for split in SPLITS}
    except FileNotFoundError:
        return None


def of_tokens(corpus: Corpus, longest: int = MAX_SENTENCE) -> WordCorpus:
    """REAN's tokens as words: those of the vocabulary in its order, with train's counts; bytes are left out.

    A sentence is what EOS ends, `longest` words at most. Vectors that are trained on train of this corpus have
    seen nothing of dev and test.
    """
    assert isinstance(corpus.tokenizer, ReanTokenizer), corpus.tokenizer
    words = corpus.tokenizer.words
    if len(words) < 2:
        raise UserError(f"data.tokens.min_count wants a text with at least two words, got {len(words)}: lower it")
    count_V = np.bincount(corpus.tokens("train"), minlength=corpus.tokenizer.vocab_size)[FIRST_WORD:]
    ids = {}
    for split in SPLITS:
        token_N = corpus.tokens(split)
        token_N = token_N[(token_N == EOS) | (token_N >= FIRST_WORD)]
        ids[split] = cut_sentences(np.maximum(token_N - (FIRST_WORD - 1), 0), longest)
    return WordCorpus(
        WordTokenizer(words, tuple(count_V.tolist()), PATTERN, lower=False),
        ids,
        total_words=len(corpus.tokens_N),
        data_hash=corpus.data_hash,
        split_hash=corpus.split_hash,
    )


def cut_sentences(id_N: np.ndarray, longest: int) -> np.ndarray:
    """The same ids with every sentence ended by one 0: longer ones are cut every `longest` words, empty ones go."""
    place_N = np.arange(len(id_N))
    is_end_N = id_N == 0
    start_N = np.maximum.accumulate(np.where(np.concatenate([[True], is_end_N[:-1]]), place_N, 0))
    nth_N = place_N - start_N
    cut_N = ~is_end_N & (nth_N % longest == 0) & (nth_N > 0)
    whole_N = np.insert(id_N, np.flatnonzero(cut_N), 0)
    if len(whole_N) and whole_N[-1] != 0:
        whole_N = np.append(whole_N, 0)
    needless_N = (whole_N == 0) & np.concatenate([[True], whole_N[:-1] == 0])
    return whole_N[~needless_N].astype(np.int32)


def _write(part: Path, path: Path, setting: str, config: DataConfig, words: WordsConfig) -> None:
    lines = config.kind == "lines"
    read = partial(read_blocks, path, setting, config.encoding)
    tokenizer, total_words = build_vocabulary(read, setting, words, lines)
    token_of = {END: 0} | {word: number for number, word in enumerate(tokenizer.words, 1)}
    blocks = split_words(read(), tokenizer.pattern, words.lower, lines, tokenizer.phrases)
    write_splits(
        part, (encode(tokens, token_of) for tokens in blocks), tokenizer.vocab_size, words.max_sentence, config
    )
    metadata = {"tokenizer": tokenizer.to_json(), "total_words": total_words}
    (part / "words.json").write_text(json.dumps(metadata), "utf-8")


def write_splits(
    directory: Path, id_blocks: Iterable[np.ndarray], vocab_size: int, max_sentence: int, config: DataConfig
) -> None:
    """Write train.npy, dev.npy and test.npy from blocks of ids (0 where a sentence ends) by one draw a sentence."""
    dtype = np.dtype(np.uint16 if vocab_size < SHORT else np.int32)
    rng = np.random.Generator(np.random.Philox(config.split_seed))
    bounds = np.cumsum(config.split)[:2] - 1e-9
    with ExitStack() as stack:
        files = [stack.enter_context((directory / f"{split}.npy").open("wb")) for split in SPLITS]
        for file in files:
            file.write(_header(dtype, 0))
        sizes = [0] * len(files)
        for id_N in id_blocks:
            id_N = cut_sentences(id_N, max_sentence)
            sentence_N = np.cumsum(np.concatenate([[0], id_N[:-1] == 0])) if len(id_N) else np.zeros(0, np.int64)
            split_S = np.searchsorted(bounds, rng.random(int((id_N == 0).sum())), side="right")
            split_N = split_S[sentence_N]
            for number, file in enumerate(files):
                chosen = id_N[split_N == number].astype(dtype)
                file.write(chosen.tobytes())
                sizes[number] += len(chosen)
        for file, size in zip(files, sizes, strict=True):
            file.seek(0)
            file.write(_header(dtype, size))


def _header(dtype: np.dtype, size: int) -> bytes:
    """The first 128 bytes of an .npy file of one dimension (format 1.0 pads its header with spaces to such a size)."""
    header = str({"descr": dtype.str, "fortran_order": False, "shape": (size,)}).encode()
    return b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + header.ljust(117) + b"\n"


def _map(path: Path) -> np.ndarray:
    array: np.ndarray = np.load(path) if path.stat().st_size <= 128 else np.load(path, mmap_mode="r")
    return array


def _file_sha256(path: Path, setting: str, encoding: str) -> str:
    digest = hashlib.sha256()
    for _ in read_pieces(path, setting, encoding, digest):
        pass
    return digest.hexdigest()
