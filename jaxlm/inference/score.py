"""How well a run predicts a text, as a whole and token by token."""

import dataclasses

import numpy as np

from jaxlm.data.corpus import encode_text
from jaxlm.data.dataset import Dataset
from jaxlm.errors import UserError
from jaxlm.inference.evaluation import Evaluator, Score
from jaxlm.runs.loading import Run


@dataclasses.dataclass(frozen=True)
class TextScore:
    """A text's score as a whole and token by token."""

    total: Score
    tokens: list[str]
    """Each predicted token, spelled; EOS as '.'."""
    nats: np.ndarray
    """-log p of each, infinite where p = 0."""

    @property
    def nats_per_token(self) -> float | None:
        """The mean; None where an event had probability 0."""
        return self.total.nats_per_token


def score(run: Run, text: str) -> TextScore:
    """How well the run's model predicts a text: lines, running text or dialogues, as the run was trained.

    Raises UserError for a character that the tokenizer does not have, and for parameters that give no number.
    """
    corpus = encode_text(text, run.tokenizer, run.config.data.kind)
    config = dataclasses.replace(run.config, batch_size=1)
    dataset = Dataset(config, corpus, context=run.model.context, max_length=run.model.max_length)
    bytes_V = run.tokenizer.bytes_of_token
    nats = Evaluator(run.model, dataset, bytes_V).per_token(run.params, dataset.rows["train"])
    if np.isnan(nats).any():
        raise UserError(f"the parameters of run {str(run.path)!r} give a loss that is not a number: train it again")
    possible = ~np.isposinf(nats)
    total = Score(
        nats=float(nats[possible].sum(dtype=np.float64)),
        tokens=len(nats),
        bytes=int(bytes_V[corpus.tokens_N].sum()),
        impossible=int((~possible).sum()),
    )
    return TextScore(total, [run.tokenizer.spell(token) for token in corpus.tokens_N.tolist()], nats)
