"""REAN as a job: a language model with a loss of its own, on vectors that another run may train first."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np

from jaxlm.config import RunConfig
from jaxlm.config.rean import TableConfig
from jaxlm.config.serialization import differences
from jaxlm.config.settings import refuse_unused
from jaxlm.data.rows import Batch
from jaxlm.embeddings import Embeddings
from jaxlm.errors import NonFiniteLoss, UserError, naming, writing
from jaxlm.models.base import LanguageModel, Params, without_buffers
from jaxlm.rean.model import ReanModel, WordVectors
from jaxlm.rean.row_step import make_rean_step
from jaxlm.runs.create import check_run, is_free, set_aside
from jaxlm.runs.directory import RunDir
from jaxlm.runs.fingerprint import fingerprint
from jaxlm.training.job import Job
from jaxlm.training.language import LanguageJob
from jaxlm.training.program import Objective
from jaxlm.training.run import train
from jaxlm.training.setup import Setup, set_up
from jaxlm.word2vec.loading import load_vectors


def prepare(
    config: RunConfig, *, restart: bool = False, dry_run: bool = False, log: Callable[[str], None] = print
) -> Job:
    """The job of a REAN model; where its vectors come from a training (model.vectors_from), that is done first.

    The vectors are an ordinary run beside this one, done, resumed or refused as any. Raises UserError.
    """
    setup = set_up(config, resumes=not restart)
    model = cast(ReanModel, setup.model)
    _check_optimizer(config, model)
    model.check_words(setup.corpus.tokenizer.words)  # before vectors are trained
    objective = objective_of(model)
    buffers = _buffers(setup, restart=restart, dry_run=dry_run, log=log)
    return LanguageJob(dataclasses.replace(setup, objective=objective, buffers=buffers), log)


def objective_of(model: ReanModel) -> Objective:
    """The loss, the step and the calibration of a REAN model."""
    return Objective(_loss, model.loss_unit, make_rean_step, _calibrated if model.is_calibrated else None)


def _check_optimizer(config: RunConfig, model: ReanModel) -> None:
    name = type(config.model).__name__
    refuse_unused(config.optim, ("z_loss",), f"a {name}", "a loss over all tokens' logits, as a GptConfig's")
    if config.optim.accumulate > 1 and model.row_table is not None and not config.optim.l2:
        raise UserError(
            f"optim.accumulate wants 1 for a {name} that updates the rows of its table which a batch touches, got "
            f"{config.optim.accumulate}: take a smaller batch_size"
        )


def vectors_recipe(config: RunConfig) -> RunConfig:
    """The word2vec run whose vectors a run stands on, beside it: of the same data, split, tokens and seed."""
    model, place = config.model, config.directory
    assert isinstance(model, TableConfig), model
    assert model.vectors_from is not None, model
    recipe = model.vectors_from
    if place.name in ("", ".."):  # as of "."
        place = place.resolve()
    return RunConfig(
        model=dataclasses.replace(recipe.model, d_embed=model.d_embed),
        data=config.data,
        optim=recipe.optim,
        seed=config.seed,
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        run_dir=f"{place}_vectors",
        device=config.device,
        gpu_memory=config.gpu_memory,
        plots=config.plots,
        tensorboard=config.tensorboard,
        wandb=config.wandb,
    )


def vectors_first(config: RunConfig, *, restart: bool) -> RunConfig | None:
    """The run of vectors that `prepare` trains or finds done; None for a config that needs none, or no more.

    `config` has the settings that depend on the data filled in.
    """
    model = config.model
    if not isinstance(model, TableConfig) or model.vectors_from is None or config.init_from is not None:
        return None
    return None if not restart and _kept_buffers(config) else vectors_recipe(config)


def read_vectors(path: str) -> WordVectors:
    """The vectors of a run directory of word2vec, whose words may end in white space, or of a file in any format.

    Raises UserError naming model.vectors.
    """
    with naming("model.vectors"):
        if RunDir(Path(path)).fingerprint.is_file():
            run = load_vectors(path)
            return WordVectors(run.tokenizer.words, np.asarray(run.params["input"]))
        loaded = Embeddings.load(path)
        return WordVectors(loaded.words, np.asarray(loaded.vec_VE))


def _loss(
    model: LanguageModel[Any], params: Params, batch: Batch, key: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    assert key is not None
    return cast(ReanModel, model).train_loss(params, *batch, key)


def _calibrated(model: LanguageModel[Any], params: Params, batch: Batch) -> Params:
    return without_buffers(cast(ReanModel, model).calibrated(params, *batch))


def _buffers(setup: Setup, *, restart: bool, dry_run: bool, log: Callable[[str], None]) -> dict[str, np.ndarray]:
    """The model's buffers: of the run that it starts from, of its own run that has begun, or made from vectors."""
    config = setup.config
    assert isinstance(config.model, TableConfig), config.model
    if setup.start:
        return setup.start.run.read_buffers()
    words, vectors = setup.corpus.tokenizer.words, None
    if config.model.vectors is not None:
        vectors = read_vectors(config.model.vectors)
    elif config.model.vectors_from is not None:
        kept = None if restart else _kept_buffers(config)
        if kept:
            return kept
        if not dry_run:
            _check_place(setup, restart, log)
        recipe = vectors_recipe(config)
        log(f"first the vectors, in {recipe.run_dir}")
        try:
            path = train(recipe, restart=restart, dry_run=dry_run, log=log)
        except NonFiniteLoss as error:  # the setting has another name in this run
            raise NonFiniteLoss(str(error).replace("--optim.lr", "--model.vectors-from.optim.lr")) from error
        zeros = WordVectors(words, np.zeros((len(words), config.model.d_embed), np.float32))
        vectors = read_vectors(str(path)) if path else zeros
    count_V = np.bincount(setup.text.tokens("train"), minlength=config.model.vocab_size or 0)
    return cast(ReanModel, setup.model).buffers(words, count_V, vectors, config.seed)


def _kept_buffers(config: RunConfig) -> dict[str, np.ndarray] | None:
    """The buffers of a run that has begun, which needs its vectors no more; None where they cannot be read, or the run
    has other settings.
    """
    run = RunDir(config.directory)
    try:
        if differences(run.read_fingerprint()["settings"], config):
            return None
        return run.read_buffers() or None
    except UserError:
        return None


def _check_place(setup: Setup, restart: bool, log: Callable[[str], None]) -> None:
    """Set an old run aside, or raise UserError where this one could not follow the training of its vectors."""
    path = setup.config.directory
    if restart:
        set_aside(path, log)
    with writing(path):
        if not is_free(path):
            check_run(path, fingerprint(setup.config, setup.corpus), setup.config)
