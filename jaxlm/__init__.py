"""Train, sample and take apart language models in JAX.

An array's name ends in its shape: `x_BTD`, `tok_BT`, `logits_BTV`. The letters:

B batch, T time, S key time, D width, F hidden width, N heads (or rows where there are no heads), K key/value heads (or
steps of a chunk, the best of a search), H head width, L layers, V vocabulary, E word-embedding width, C
context tokens, M negatives, R rows of a data set, P prompt tokens (or contexts of a count model), I inputs and O
outputs of a layer, U distinct n-grams or words, G gates of a cell (or blocks of an update), S also special tokens, a
stop's tokens or sentences, Q questions.

The public names load when they are first used: importing jaxlm imports no JAX.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxlm.config import (
        AnyTextConfig,
        BowConfig,
        BpeConfig,
        BytesConfig,
        CharactersConfig,
        CheckpointConfig,
        CountsConfig,
        DataConfig,
        DistributedConfig,
        EvalConfig,
        FaithfulReanConfig,
        GptConfig,
        MeshConfig,
        MixtureConfig,
        MlpConfig,
        ModelConfig,
        NgramConfig,
        OptimConfig,
        PrepareConfig,
        PreparedTokensConfig,
        ReanConfig,
        ReanTokensConfig,
        RnnConfig,
        RopeConfig,
        RunConfig,
        SampleConfig,
        TokensConfig,
        VectorsConfig,
        WavenetConfig,
        Word2vecConfig,
        WordsConfig,
    )
    from jaxlm.embeddings import Embeddings
    from jaxlm.errors import UserError
    from jaxlm.inference.generate import generate
    from jaxlm.inference.score import score
    from jaxlm.runs.loading import Run, load_run
    from jaxlm.training import train

__version__ = "0.1.0"

_HOMES = {
    "jaxlm.config": (
        "AnyTextConfig",
        "BowConfig",
        "BpeConfig",
        "BytesConfig",
        "CharactersConfig",
        "CheckpointConfig",
        "CountsConfig",
        "DataConfig",
        "DistributedConfig",
        "EvalConfig",
        "FaithfulReanConfig",
        "GptConfig",
        "MeshConfig",
        "MixtureConfig",
        "MlpConfig",
        "ModelConfig",
        "NgramConfig",
        "OptimConfig",
        "PrepareConfig",
        "PreparedTokensConfig",
        "ReanConfig",
        "ReanTokensConfig",
        "RnnConfig",
        "RopeConfig",
        "RunConfig",
        "SampleConfig",
        "TokensConfig",
        "VectorsConfig",
        "WavenetConfig",
        "Word2vecConfig",
        "WordsConfig",
    ),
    "jaxlm.embeddings": ("Embeddings",),
    "jaxlm.errors": ("UserError",),
    "jaxlm.inference.generate": ("generate",),
    "jaxlm.inference.score": ("score",),
    "jaxlm.runs.loading": ("Run", "load_run"),
    "jaxlm.training": ("train",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "AnyTextConfig",
    "BowConfig",
    "BpeConfig",
    "BytesConfig",
    "CharactersConfig",
    "CheckpointConfig",
    "CountsConfig",
    "DataConfig",
    "DistributedConfig",
    "Embeddings",
    "EvalConfig",
    "FaithfulReanConfig",
    "GptConfig",
    "MeshConfig",
    "MixtureConfig",
    "MlpConfig",
    "ModelConfig",
    "NgramConfig",
    "OptimConfig",
    "PrepareConfig",
    "PreparedTokensConfig",
    "ReanConfig",
    "ReanTokensConfig",
    "RnnConfig",
    "RopeConfig",
    "Run",
    "RunConfig",
    "SampleConfig",
    "TokensConfig",
    "UserError",
    "VectorsConfig",
    "WavenetConfig",
    "Word2vecConfig",
    "WordsConfig",
    "generate",
    "load_run",
    "score",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'jaxlm' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME_OF])
