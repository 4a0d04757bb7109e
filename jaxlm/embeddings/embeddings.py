"""The table of words and vectors, with similarity, analogies and odd-one-out by word."""

import dataclasses
import unicodedata
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.embeddings import files, search
from jaxlm.embeddings.spelling import near_spellings
from jaxlm.errors import UserError

Method = Literal["3cosadd", "3cosmul"]
"""The formula of analogies (search.py)."""
ScoredWords = list[tuple[str, float]]
"""Words with their scores, best first."""
ANALOGY = {"3cosadd": search.analogy_cosadd, "3cosmul": search.analogy_cosmul}
"""Search function of each method."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Embeddings:
    """V distinct words, the most frequent first if that is known, with a vector each.

        vectors = Embeddings.load("vectors.bin")
        vectors.similar("king", 3)                 # [("queen", 0.78), ...]
        vectors.analogy("man", "king", "woman", 1)  # man is to king as woman is to ...
        jaxlm.embeddings.search.nearest_rows(vectors.unit_VE, query_BE, k=10)

    Raises ValueError if the numbers of words and vectors differ or a word is repeated.
    """

    words: tuple[str, ...]
    """The words, each once."""
    vec_VE: np.ndarray
    """The vectors, one row a word, float32."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "words", tuple(self.words))
        object.__setattr__(self, "vec_VE", np.asarray(self.vec_VE, np.float32))
        if self.vec_VE.ndim != 2 or len(self.words) != len(self.vec_VE):
            raise ValueError(
                f"Embeddings wants vec_VE with a row for each of {len(self.words)} words, got shape {self.vec_VE.shape}"
            )
        if len(set(self.words)) < len(self.words):
            raise ValueError("Embeddings wants each word once")

    def __len__(self) -> int:
        return len(self.words)

    def __contains__(self, word: object) -> bool:
        return isinstance(word, str) and self._spelled(word) in self.index

    def __getitem__(self, word: str) -> np.ndarray:
        return self.vec_VE[self.rows([word])[0]]

    def __repr__(self) -> str:
        return f"Embeddings({self.vec_VE.shape[0]:,} words x {self.vec_VE.shape[1]})"

    @cached_property
    def index(self) -> dict[str, int]:
        """Map from word to row."""
        return {word: row for row, word in enumerate(self.words)}

    @cached_property
    def unit_VE(self) -> jax.Array:
        """The vectors scaled to length 1, on the default device."""
        return jax.jit(search.unit_rows)(jnp.asarray(self.vec_VE))

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        errors: files.DecodeErrors = "strict",
        skip_bad_rows: bool = False,
        log: Callable[[str], None] = lambda line: None,
    ) -> "Embeddings":
        """Read word2vec's text or binary format or GloVe's text, gzipped or not; the format is detected.

        Fields are separated by blanks or tabs. `errors` handles words that are not UTF-8, as in bytes.decode. If a word
        is repeated, the first is kept and the others are reported to `log`. Raises UserError naming the line or word at
        which a file is malformed or has a number that is not finite; with skip_bad_rows such rows are left out, and
        reported to `log`. A file of another kind is named for what it is.
        """
        return cls(*files.read_table(Path(path), errors, log, skip_bad_rows=skip_bad_rows))

    def save(self, path: str | Path, format: files.Format | None = None) -> None:
        """Write the table in `format`, or in that of the suffix, atomically.

        Suffixes: .txt or .vec (word2vec's text), .bin (its binary), .glove.txt, each followed by .gz to gzip it. Every
        format gives the same float32 numbers back. Raises UserError for another suffix, and for a word that is empty
        or has a space or a line end.
        """
        files.write_table(Path(path), self.words, self.vec_VE, format)

    def rows(self, words: Sequence[str]) -> np.ndarray:
        """Look up the row of each word, in either of Unicode's normal forms.

        Raises UserError with near spellings for an unknown one.
        """
        words = [self._spelled(word) for word in words]
        for word in words:
            if word not in self.index:
                near = near_spellings(word, self.words)
                hint = f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""
                raise UserError(f"word {word!r} is not among the {len(self):,} known{hint}")
        return np.array([self.index[word] for word in words], np.int32)

    def similarity(self, a: str, b: str) -> float:
        """Cosine of two words' vectors."""
        a_E, b_E = self.vec_VE[self.rows([a, b])]
        return float(search.similarity(jnp.asarray(a_E), jnp.asarray(b_E)))

    def similar(self, word: str, n: int = 10) -> ScoredWords:
        """Find the n other words with the largest cosine to a word."""
        row_11 = jnp.asarray(self.rows([word]))[None]
        return self._named(search.nearest_rows(self.unit_VE, self.unit_VE[row_11[0]], n, row_11))

    def analogy(self, a: str, b: str, c: str, n: int = 10, method: Method = "3cosadd") -> ScoredWords:
        """Find the n words that best complete "a is to b as c is to ...", with the method's scores (search.py)."""
        if method not in ANALOGY:
            raise UserError(f"the method of analogies wants {' or '.join(ANALOGY)}, got {method!r}")
        return self._named(ANALOGY[method](self.unit_VE, jnp.asarray(self.rows([a, b, c]))[None], n))

    def odd_one_out(self, words: Sequence[str]) -> str:
        """Find the word with the lowest cosine to the mean of all. Raises UserError for fewer than three words."""
        return min(self.agreement(words), key=lambda scored: scored[1])[0]

    def agreement(self, words: Sequence[str]) -> ScoredWords:
        """Pair each of three or more words with its cosine to the mean of their unit vectors, in the order given."""
        if len(words) < 3:
            raise UserError(f"odd-one-out wants at least 3 words, got {len(words)}")
        cos_N = search.cosine_to_mean(self.unit_VE[jnp.asarray(self.rows(words))][None])[0]
        return list(zip(words, cos_N.tolist(), strict=True))

    def _spelled(self, word: str) -> str:
        """The word as given or, where the table has that alone, in the normal form NFC or NFD."""
        forms = (word, unicodedata.normalize("NFC", word), unicodedata.normalize("NFD", word))
        return next((form for form in forms if form in self.index), word)

    def _named(self, found: search.BestRows) -> ScoredWords:
        pairs = zip(found.row_BK[0].tolist(), found.score_BK[0].tolist(), strict=True)
        return [(self.words[row], score) for row, score in pairs if row >= 0]
