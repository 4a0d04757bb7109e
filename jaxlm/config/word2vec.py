"""Settings of word2vec: how vectors of words are trained."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, Literal

from jaxlm.config import check
from jaxlm.config.models import ModelConfig
from jaxlm.config.settings import refuse_unused
from jaxlm.errors import UserError

if TYPE_CHECKING:
    from jaxlm.config.run import RunConfig
    from jaxlm.training.job import Job
    from jaxlm.word2vec.model import Word2vec


@dataclasses.dataclass(frozen=True)
class Word2vecConfig(ModelConfig):
    """Word vectors trained on the words around each word: word2vec (Mikolov et al. 2013a, 2013b).

    A step reads batch_size words of the text. Its `workers` run in parallel from the same vectors, each doing its
    updates one after another; their changes are added up at the end of the step.
    """

    predict: Literal["skip-gram", "cbow"] = "skip-gram"
    """skip-gram: a word predicts each neighbour. cbow: the neighbours together predict the word."""
    output: Literal["negative-sampling", "hierarchical-softmax"] = "negative-sampling"
    """The prediction: a word against drawn ones, or its path in a Huffman tree."""
    d_embed: int = 100
    """Width of a vector."""
    window: int = 5
    """Words to each side at most."""
    shrink: bool = True
    """Draw each word's window from 1 to `window`; else it is always `window`."""
    subsample: float = 1e-3
    """A word of frequency f stays with probability sqrt(t / f) + t / f, where t is this; 0 keeps all."""
    negatives: int = 5
    """Drawn words for each pair."""
    shared_negatives: int = 32
    """Words that are drawn for one update and shared by its pairs, each weighing negatives / shared_negatives."""
    exponent: float = 0.75
    """Negatives are drawn in proportion to count ** exponent."""
    cbow_average: Literal["mean", "sum"] = "mean"
    """cbow: how the neighbours' vectors are put together."""
    span: int = 32
    """Words of one block, whose windows are one banded product."""
    blocks: int = 4
    """Blocks in an update; their updates are added up. Fewer and shorter ones if the vocabulary is smaller."""
    workers: int = 2
    """Parallel parts of a step, each in a thread; one after another if the vocabulary is small.
    The trained vectors depend on their number."""

    trained_by_steps: ClassVar[bool] = True
    predicts_text: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check.at_least("model.d_embed", self.d_embed, 1)
        check.between("model.window", self.window, 1, 100)
        check.between("model.subsample", self.subsample, 0, 1)
        check.at_least("model.negatives", self.negatives, 1)
        check.at_least("model.shared_negatives", self.shared_negatives, 1)
        check.between("model.exponent", self.exponent, -2, 2)
        check.between("model.span", self.span, 1, 4096)
        check.between("model.blocks", self.blocks, 1, 4096)
        check.between("model.workers", self.workers, 1, 64)
        if self.output == "negative-sampling" and self.shared_negatives < self.negatives:
            raise UserError(
                f"model.shared_negatives wants at least the {self.negatives} of model.negatives, "
                f"got {self.shared_negatives}"
            )
        if self.output != "negative-sampling":
            names = ("negatives", "shared_negatives", "exponent")
            refuse_unused(self, names, f"model.output {self.output}", "model.output negative-sampling")
        if self.predict != "cbow":
            refuse_unused(self, ("cbow_average",), f"model.predict {self.predict}", "model.predict cbow")

    @property
    def update_words(self) -> int:
        """Words in an update."""
        return self.span * self.blocks

    def build(self) -> "Word2vec":  # type: ignore[override]
        """The model of these settings."""
        from jaxlm.word2vec.model import build

        return build(self)

    def prepare(self, config: "RunConfig", *, restart: bool, dry_run: bool, log: Callable[[str], None]) -> "Job":
        """The job that trains these vectors."""
        from jaxlm.word2vec.training import prepare

        return prepare(config, restart=restart, dry_run=dry_run, log=log)
