"""Vectors of words that another model stands on: read from a file or a run, or trained first."""

import dataclasses
from pathlib import Path

import numpy as np

from jaxlm.config import RunConfig
from jaxlm.config.rean import TableConfig
from jaxlm.config.serialization import differences
from jaxlm.embeddings import Embeddings
from jaxlm.errors import UserError, naming
from jaxlm.models.base import Words
from jaxlm.runs.claims import place_of
from jaxlm.runs.directory import RunDir
from jaxlm.runs.loading import load_vectors


def read_vectors(path: str) -> Words:
    """The vectors of a run directory of word2vec, whose words may end in white space, or of a file in any format.

    Raises UserError naming model.vectors.
    """
    with naming("model.vectors"):
        if RunDir(Path(path)).fingerprint.is_file():
            run = load_vectors(path)
            return Words(run.tokenizer.words, run.params["input"])
        loaded = Embeddings.load(path)
        return Words(loaded.words, loaded.vec_VE)


def kept_buffers(config: RunConfig) -> dict[str, np.ndarray] | None:
    """What a run that has begun made of its vectors, which it needs no more; None where that cannot be read, or the run
    has other settings.
    """
    run = RunDir(place_of(config))
    try:
        if differences(run.read_fingerprint()["settings"], config):
            return None
        return run.read_buffers() or None
    except UserError:
        return None


def recipe(config: RunConfig) -> RunConfig:
    """The word2vec run whose vectors a run stands on, beside it: of the same data, split, tokens and seed."""
    model = config.model
    assert isinstance(model, TableConfig), model
    assert model.vectors_from is not None, model
    how, place = model.vectors_from, place_of(config)
    if place.name in ("", ".."):  # as of "."
        place = place.resolve()
    return RunConfig(
        model=dataclasses.replace(how.model, d_embed=model.d_embed),
        data=config.data,
        optim=how.optim,
        seed=config.seed,
        epochs=how.epochs,
        batch_size=how.batch_size,
        run_dir=f"{place}_vectors",
        device=config.device,
        gpu_memory=config.gpu_memory,
        plots=config.plots,
        tensorboard=config.tensorboard,
    )
