"""Every setting of a run, as frozen dataclasses that import no JAX."""

from jaxlm.config.bow import BowConfig
from jaxlm.config.counts import CountsConfig
from jaxlm.config.gpt import GptConfig
from jaxlm.config.mlp import MlpConfig
from jaxlm.config.model import ModelConfig
from jaxlm.config.ngram import NgramConfig
from jaxlm.config.rean import FaithfulReanConfig, ReanConfig, VectorsConfig
from jaxlm.config.rnn import RnnConfig
from jaxlm.config.run import CheckpointConfig, DataConfig, EvalConfig, OptimConfig, RunConfig, SampleConfig
from jaxlm.config.wavenet import WavenetConfig
from jaxlm.config.word2vec import Word2vecConfig
from jaxlm.config.words import WordsConfig

__all__ = [
    "BowConfig",
    "CheckpointConfig",
    "CountsConfig",
    "DataConfig",
    "EvalConfig",
    "FaithfulReanConfig",
    "GptConfig",
    "MlpConfig",
    "ModelConfig",
    "NgramConfig",
    "OptimConfig",
    "ReanConfig",
    "RnnConfig",
    "RunConfig",
    "SampleConfig",
    "VectorsConfig",
    "WavenetConfig",
    "Word2vecConfig",
    "WordsConfig",
]
