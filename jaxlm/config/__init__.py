"""Every setting of a run, as frozen dataclasses that import no JAX."""

from jaxlm.config.any_text import AnyTextConfig
from jaxlm.config.data import DataConfig, PrepareConfig, PreparedTokensConfig
from jaxlm.config.distributed import DistributedConfig
from jaxlm.config.mesh import MeshConfig
from jaxlm.config.mixture import MixtureConfig
from jaxlm.config.models import (
    BowConfig,
    CountsConfig,
    MlpConfig,
    ModelConfig,
    NgramConfig,
    RnnConfig,
    WavenetConfig,
)
from jaxlm.config.optim import OptimConfig
from jaxlm.config.rean import FaithfulReanConfig, ReanConfig, VectorsConfig
from jaxlm.config.rope import RopeConfig
from jaxlm.config.run import CheckpointConfig, EvalConfig, RunConfig, SampleConfig
from jaxlm.config.tokens import BpeConfig, BytesConfig, CharactersConfig, ReanTokensConfig, TokensConfig, WordsConfig
from jaxlm.config.transformer import GptConfig
from jaxlm.config.word2vec import Word2vecConfig

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
]
