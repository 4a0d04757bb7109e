"""Loading of trained runs: a language model with its parameters."""

import dataclasses
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from jaxlm.config import PreparedTokensConfig, RunConfig
from jaxlm.config.mesh import MeshConfig
from jaxlm.config.user_code import TrustCode, is_own
from jaxlm.devices import processes
from jaxlm.devices.mesh import DATA_PARALLEL, make_mesh, mesh_of, replicated, state_sharding
from jaxlm.errors import UserError
from jaxlm.models.base import BUFFERS, LanguageModel, Params, PredictsVectors, axes_of, with_buffers, without_buffers
from jaxlm.models.check import build
from jaxlm.models.initialization import abstract_state, untrained_params
from jaxlm.runs import checkpoints
from jaxlm.runs.directory import RunDir, open_existing, read_json, seed_directory
from jaxlm.runs.fingerprint import content_hash
from jaxlm.runs.parameter_changes import changed_parameters
from jaxlm.tokenizers import Tokenizer

Weights = Literal["ema", "raw"]
"""The parameters of a checkpoint with optim.ema: their running average, or as the last update left them."""
LISTS = 10
"""Times the checkpoints are listed again while a training deletes the ones that were to be read."""
MOMENT = 0.1
"""Seconds within which a checkpoint's deletion is complete."""


@dataclasses.dataclass(frozen=True)
class Run:
    """A trained language model with its parameters, tokenizer and settings."""

    path: Path
    config: RunConfig
    tokenizer: Tokenizer
    model: LanguageModel[Any]
    params: Params
    step: int
    """Updates behind the parameters."""

    @functools.cached_property
    def marks_unknown(self) -> bool:
        """True if the model predicts "[NIV]" when no vector is near the predicted one."""
        return isinstance(self.model, PredictsVectors) and self.model.marks_unknown

    @property
    def has_documents(self) -> bool:
        """True if the model was trained on token shards, in which EOS ends each document."""
        return isinstance(self.config.data.tokens, PreparedTokensConfig)

    def untrained(self) -> Params:
        """Parameters before the first step: drawn from the seed again, or loaded from the run that init_from names.

        They lie on the devices as those of the run do. Raises UserError naming init_from if that run has been moved,
        deleted or replaced.
        """
        if (start := self.config.init_from) is None:
            drawn = untrained_params(self.config, self.model, mesh_of(self.params))
            return with_buffers(drawn, self.params.get(BUFFERS))
        try:
            mesh = mesh_of(self.params)
            other = load_run(start, mesh=DATA_PARALLEL if mesh is None else MeshConfig(**mesh.shape))
        except UserError as error:
            raise UserError(f"init_from {start!r}, where training began, cannot be opened: {error}") from error
        want, got = (jax.tree.map(np.shape, params) for params in (self.params, other.params))
        content = content_hash(other.params)
        began = read_json(RunDir(self.path).fingerprint).get("init_from", content)
        itself = other.path.resolve() == self.path.resolve()
        if want != got or other.tokenizer != self.tokenizer or began != content or itself:
            raise UserError(f"init_from {start!r} is no longer the run where training began")
        return other.params


def load_run(
    path: str | Path,
    *,
    which: Literal["best", "last"] = "best",
    weights: Weights = "ema",
    trust_code: TrustCode = False,
    mesh: MeshConfig = DATA_PARALLEL,
    log: Callable[[str], None] | None = None,
) -> Run:
    """Load a language model's run with its best checkpoint by dev loss, or its last.

    Of a run with optim.ema, `weights` are the running average, or "raw": the parameters as the last update left them.
    Broken checkpoints are skipped and reported to `log`. A model class in a user's own file is loaded only with
    trust_code: True for the file that the run names, or the path of the file if it was moved. The parameters lie on a
    mesh of all devices, whatever the mesh of the training was; by default each device has all of them. Raises UserError
    if the directory is not a run, has another format, or has no checkpoint that can be read, for the raw weights of a
    run without an average, and for a mesh that does not fit.
    """
    run = open_existing(Path(path))
    config = run.read_config(trust_code)
    if not config.model.predicts_text:
        raise UserError(f"run {str(path)!r} has vectors of words and gives no text a probability: ask for neighbours")
    tokenizer = run.read_tokenizer()
    model = build(config.model, decodes=config.sample.n > 0, eos=tokenizer.eos)
    placed = make_mesh(mesh)
    params, step = load_parameters(
        run, which, log, weights, lies=functools.partial(state_sharding, placed, axes=axes_of(model))
    )
    if config.model.trained_by_steps and is_own(type(config.model)):
        _check_shapes(Path(path), model, params)
    params = with_buffers(params, jax.device_put(run.read_buffers(), replicated(placed)))
    return Run(Path(path), config, tokenizer, model, params, step)


def _check_shapes(path: Path, model: LanguageModel[Any], params: Params) -> None:
    """Raise UserError if a user's own class builds a model with other parameters than the one that was trained."""
    changed = changed_parameters(without_buffers(params), without_buffers(abstract_state(model)[0]))
    if changed:
        raise UserError(
            f"run {str(path)!r} was trained with other parameters than its model's class has now: {changed}; put the "
            "class back as it was, or train again with train.py --restart"
        )


def load_parameters(
    run: RunDir,
    which: Literal["best", "last"] = "best",
    log: Callable[[str], None] | None = None,
    weights: Weights = "ema",
    *,
    lies: Callable[[Params], Any] | None = None,
) -> tuple[Params, int]:
    """Load the parameters of the best or last readable checkpoint, with its step: their average where the run has one.

    `lies` gives the shardings of a tree of parameters; None: every device has all of them. A training may delete
    checkpoints meanwhile: if none can be read and some are gone, they are listed again.
    """
    _refuse_seeds(run)
    if lies is None:
        lies = functools.partial(state_sharding, make_mesh(), axes={})
    averages = _has_average(run)
    if weights == "raw" and not averages:
        raise UserError(f"weights raw wants a run with optim.ema, whose average it sets aside, got {str(run.path)!r}")
    for _ in range(LISTS):
        saved = checkpoints.best_first(run.checkpoints)
        if which == "last":
            saved.sort(key=lambda one: -one.step)
        broken = processes.from_first(lambda: checkpoints.unreadable(run.checkpoints))
        for one in saved:
            try:
                params = checkpoints.load_params(run.checkpoints, one, lies, average=averages and weights == "ema")
            except UserError:
                if processes.count() > 1 or not _is_gone(run, one.step):
                    raise
                params = None
            if params is not None:
                for step in broken:
                    if log and not _is_gone(run, step):
                        log(f"checkpoint {step} of {run.path} is broken: taking that of step {one.step}")
                return params, one.step
            broken.append(one.step)
        if not any(_is_gone(run, step) for step in broken):
            break
    fix = f"train it again with train.py{' --restart' if run.eval.exists() else ''}"
    raise UserError(f"run {str(run.path)!r} has no checkpoint that can be read: {fix}")


def _has_average(run: RunDir) -> bool:
    """True if the run's checkpoints have a running average of the parameters."""
    settings = read_json(run.config).get("optim")
    return isinstance(settings, dict) and settings.get("ema") is not None


def _refuse_seeds(run: RunDir) -> None:
    """Raise UserError for the directory of several runs that one program trained, naming the first of them."""
    settings = read_json(run.config)
    if settings.get("seeds", 1) > 1:
        first = seed_directory(run.path, settings["seed"])
        raise UserError(
            f"run {str(run.path)!r} holds the runs of {settings['seeds']} seeds: open one of them, as in {first}"
        )


def _is_gone(run: RunDir, step: int) -> bool:
    """True if a checkpoint that could not be read is gone a moment later, because a training deleted it."""
    time.sleep(MOMENT)
    return processes.from_first(lambda: not (run.checkpoints / str(step)).exists())
