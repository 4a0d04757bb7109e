"""A mixture as a job: counts of train, a network that is trained beside them, and a share fitted on dev."""

import dataclasses
from collections.abc import Callable
from typing import Any, cast

import jax
import numpy as np

from jaxlm.config import RunConfig
from jaxlm.data.rows import Batch
from jaxlm.models.base import LanguageModel, Params, without_buffers
from jaxlm.models.mixture import Mixture
from jaxlm.training.job import Job
from jaxlm.training.language import LanguageJob
from jaxlm.training.program import Objective
from jaxlm.training.setup import Setup, set_up
from jaxlm.training.step import language_loss


def prepare(
    config: RunConfig, *, restart: bool = False, dry_run: bool = False, log: Callable[[str], None] = print
) -> Job:
    """Prepare the job of a mixture: count train. Raises UserError."""
    setup = set_up(config, resumes=not restart)
    objective = Objective(loss=_loss, calibrate=_calibrated, calibrated_on="dev")
    return LanguageJob(dataclasses.replace(setup, objective=objective, buffers=_counts(setup, log)), log)


def _loss(
    model: LanguageModel[Any], params: Params, batch: Batch, key: jax.Array | None, *, z_loss: float = 0.0
) -> tuple[jax.Array, jax.Array]:
    """The network's own cross-entropy: its gradient does not depend on the counts."""
    return language_loss(cast(Mixture, model).network, params["network"], batch, key, z_loss=z_loss)


def _calibrated(model: LanguageModel[Any], params: Params, batch: Batch) -> Params:
    assert batch.weight is not None  # of a batch of given rows
    return without_buffers(cast(Mixture, model).calibrated(params, batch.tok, batch.target, batch.weight))


def _counts(setup: Setup, log: Callable[[str], None]) -> dict[str, np.ndarray]:
    """The buffers: counts of train, or those of the run that this one starts from."""
    if setup.start:
        return setup.start.run.read_buffers()
    corpus, (start, end) = setup.text, setup.text.bounds["train"]
    params, notes = cast(Mixture, setup.model).counts.fit(corpus.tokens_N[start:end], corpus.age_N[start:end])
    for note in notes:
        log(note)
    return {name: np.asarray(array) for name, array in params.items()}
