"""Loading of trained runs: the vectors of a word2vec run."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np

from jaxlm.config import RunConfig
from jaxlm.config.user_code import TrustCode
from jaxlm.embeddings import Embeddings
from jaxlm.errors import UserError
from jaxlm.models.base import Params
from jaxlm.runs.directory import open_existing
from jaxlm.runs.loading import load_parameters
from jaxlm.tokenizers import WordTokenizer


@dataclasses.dataclass(frozen=True)
class VectorRun:
    """Trained word vectors: row i of params["input"] is the vector of tokenizer.words[i]."""

    path: Path
    config: RunConfig
    tokenizer: WordTokenizer
    params: Params
    step: int
    """Updates behind the parameters."""

    def embeddings(self) -> Embeddings:
        """The table of words and their input vectors, the most frequent word first."""
        return Embeddings(self.tokenizer.words, np.asarray(self.params["input"]))


def load_vectors(
    path: str | Path,
    *,
    which: Literal["best", "last"] = "best",
    trust_code: TrustCode = False,
    log: Callable[[str], None] | None = None,
) -> VectorRun:
    """Load a word2vec run as `load_run` does. Raises UserError also if it is a language model's run."""
    run = open_existing(Path(path))
    config = run.read_config(trust_code)
    if config.model.predicts_text:
        raise UserError(f"run {str(path)!r} is of a language model, which has no vectors of words")
    return VectorRun(Path(path), config, run.read_words(), *load_parameters(run, which, log))
