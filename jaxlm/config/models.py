"""Settings of language models, and how a model is built from them; a transformer's are in config/transformer.py."""

import abc
import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from jaxlm.config import check
from jaxlm.config.settings import Settings, refuse_unused

if TYPE_CHECKING:
    from jaxlm.config.run import RunConfig
    from jaxlm.models.base import LanguageModel, SequenceModel, WindowModel
    from jaxlm.models.counts import CountModel
    from jaxlm.models.wavenet import Wavenet
    from jaxlm.training.job import Job


@dataclasses.dataclass(frozen=True)
class ModelConfig(Settings, abc.ABC, group="model.", example="MlpConfig(...)"):
    """A model's settings. A subclass adds its sizes and builds the model from them.

    A subclass in a file of your own works with train.py as these do.
    """

    vocab_size: int | None = None
    """Tokens in the vocabulary, EOS included. None: what the data has."""

    trained_by_steps: ClassVar[bool] = True
    """False: `model.fit(tokens, ages)` gives the parameters in one call (counts)."""
    predicts_text: ClassVar[bool] = True
    """False: the parameters are vectors of words; there is no likelihood of a text and nothing to sample (word2vec)."""

    def __post_init__(self) -> None:
        check.at_least("model.vocab_size", self.vocab_size, 1)

    @abc.abstractmethod
    def build(self) -> "LanguageModel[Any]":
        """The model of these settings. Imports JAX; raises ValueError while vocab_size is None."""

    def prepare(self, config: "RunConfig", *, restart: bool, dry_run: bool, log: Callable[[str], None]) -> "Job":
        """The job that trains this model by the settings of a run. Imports JAX."""
        from jaxlm.training.language import prepare

        return prepare(config, restart=restart, dry_run=dry_run, log=log)

    def filled(self, vocab_size: int, longest: int) -> "ModelConfig":
        """Return these settings with what the data gives: its vocabulary and its longest sequence, in tokens."""
        return dataclasses.replace(self, vocab_size=self.vocab_size or vocab_size)


MOST_CONTEXT = 2**20
"""Positions of a model at most."""


@dataclasses.dataclass(frozen=True)
class PositionsConfig(ModelConfig):
    """Settings of a model with a table of positions."""

    context: int | None = None
    """Positions in the table, the longest sequence. None: as long as the data's sequences."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.context is not None:
            check.between("model.context", self.context, 1, MOST_CONTEXT)

    def filled(self, vocab_size: int, longest: int) -> "PositionsConfig":
        """These settings with the data's vocabulary and its longest sequence."""
        return dataclasses.replace(self, vocab_size=self.vocab_size or vocab_size, context=self.context or longest)


@dataclasses.dataclass(frozen=True)
class CountsConfig(ModelConfig):
    """An n-gram table: p(token | the order - 1 tokens before it) from counts."""

    order: int = 2
    """Tokens an n-gram has: 1 unigram, 2 bigram, 3 trigram."""
    smoothing: Literal["add-k", "kneser-ney"] = "add-k"
    """How counts become probabilities. kneser-ney: interpolated, with three discounts for each length."""
    add_k: float = 1.0
    """add-k: added to every count (a "fake count"). With 0 an unseen event has probability 0."""

    trained_by_steps: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check.between("model.order", self.order, 1, 64)
        check.between("model.add_k", self.add_k, 0, 1e30)
        if self.smoothing != "add-k":
            refuse_unused(self, ("add_k",), f"model.smoothing {self.smoothing}", "model.smoothing add-k")

    def build(self) -> "CountModel":
        """The model of these settings."""
        from jaxlm.models.base import needed
        from jaxlm.models.counts import AddK, KneserNey

        sizes = {"context": self.order - 1, "vocab_size": needed(self.vocab_size, "CountsConfig.vocab_size")}
        return KneserNey(**sizes) if self.smoothing == "kneser-ney" else AddK(**sizes, add_k=self.add_k)


MAX_ENTRIES = 2**28
"""Entries that the table has at most."""
MOST_ORDER = MAX_ENTRIES.bit_length() - 1
"""Beyond it even two tokens have more entries."""


@dataclasses.dataclass(frozen=True)
class NgramConfig(ModelConfig):
    """One row of logits for each context of order - 1 tokens, learned by descent."""

    order: int = 2
    """Tokens an n-gram has: 2 bigram, 3 trigram. The table has vocab_size ** (order - 1) rows."""
    init_scale: float = 1.0
    """Standard deviation of the logits at the start; 0 starts from the uniform distribution."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check.between("model.order", self.order, 2, MOST_ORDER)
        check.at_least("model.init_scale", self.init_scale, 0)

    def build(self) -> "WindowModel":
        """The model of these settings."""
        from jaxlm.models.ngram import build

        return build(self)


@dataclasses.dataclass(frozen=True)
class MlpConfig(ModelConfig):
    """Bengio et al. (2003): embeddings of the last tokens, one tanh layer, logits."""

    context: int = 3
    """Tokens the model sees."""
    d_embed: int = 10
    """Width of a token's embedding."""
    d_hidden: int = 200
    """Number of tanh units."""
    init: Literal["normal", "scaled"] = "scaled"
    """normal: every parameter from N(0, 1). scaled: standard deviation gain / sqrt(inputs), and zero biases."""
    gain: float = 5 / 3
    """scaled: 5/3 keeps a tanh layer's variance; a wide window learns slower but generalises better with less."""
    out_gain: float = 1 / 60
    """scaled: of the output layer; so small, the first loss is near ln(vocab_size). AdamW learns faster with more."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check.between("model.context", self.context, 1, 2**16 - 1)
        check.at_least("model.d_embed", self.d_embed, 1)
        check.at_least("model.d_hidden", self.d_hidden, 1)
        check.at_least("model.gain", self.gain, 0)
        check.at_least("model.out_gain", self.out_gain, 0)
        if self.init != "scaled":
            refuse_unused(self, ("gain", "out_gain"), f"model.init {self.init}", "model.init scaled")

    def build(self) -> "WindowModel":
        """The model of these settings."""
        from jaxlm.models.mlp import build

        return build(self)


@dataclasses.dataclass(frozen=True)
class BowConfig(PositionsConfig):
    """The mean of all embeddings so far, then a tanh layer."""

    d_embed: int = 64
    """Width of a token's embedding."""
    d_hidden: int = 64
    """Number of tanh units."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check.at_least("model.d_embed", self.d_embed, 1)
        check.at_least("model.d_hidden", self.d_hidden, 1)

    def build(self) -> "SequenceModel":
        """The model of these settings."""
        from jaxlm.models.bow import build

        return build(self)


@dataclasses.dataclass(frozen=True)
class RnnConfig(ModelConfig):
    """A recurrent layer between an embedding and the logits, with a learned start state."""

    cell: Literal["rnn", "gru", "lstm"] = "rnn"
    """rnn: tanh. gru: the reset gate acts on the state before the product. lstm: input, forget and output gates."""
    d_embed: int = 64
    """Width of a token's embedding."""
    d_hidden: int = 64
    """Width of the state."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check.at_least("model.d_embed", self.d_embed, 1)
        check.at_least("model.d_hidden", self.d_hidden, 1)

    def build(self) -> "SequenceModel":
        """The model of these settings."""
        from jaxlm.models.rnn import build

        return build(self)


@dataclasses.dataclass(frozen=True)
class WavenetConfig(ModelConfig):
    """Layers with dilations 1, 2, 4, ..., each joining two positions of the layer below."""

    layers: int = 3
    """Number of layers; the context is 2 ** layers tokens."""
    d_embed: int = 24
    """Width of a token's embedding."""
    d_hidden: int = 128
    """Width of each layer."""
    style: Literal["fusion", "gated"] = "fusion"
    """fusion: tanh of the normalised pair, as in the makemore lecture.
    gated: tanh times sigmoid, with residuals and skips, as in the paper."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check.between("model.layers", self.layers, 1, 15)
        check.at_least("model.d_embed", self.d_embed, 1)
        check.at_least("model.d_hidden", self.d_hidden, 1)

    def build(self) -> "Wavenet":
        """The model of these settings."""
        from jaxlm.models.wavenet import build

        return build(self)
