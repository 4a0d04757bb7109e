"""Initialisation of a training from another run's parameters (init_from)."""

from pathlib import Path
from typing import NamedTuple

from jaxlm.config import ModelConfig, RunConfig
from jaxlm.errors import UserError, naming
from jaxlm.models.base import Params
from jaxlm.models.initialization import by_name
from jaxlm.runs import checkpoints
from jaxlm.runs.directory import RunDir, open_existing, read_json
from jaxlm.runs.fingerprint import content_hash
from jaxlm.runs.loading import load_parameters


class Start(NamedTuple):
    """The initial parameters from the run that init_from names."""

    run: RunDir
    """The run that init_from names; if it is gone, the run to resume, which has its tokenizer and buffers."""
    params: Params | None
    """The initial parameters; None if they are gone, so that training can only resume from a checkpoint."""
    content: str | None
    """SHA-256 of the parameters; None if they are gone and the fingerprint lacks it."""


def starting_point(config: RunConfig, *, resumes: bool) -> Start | None:
    """Load the parameters that init_from names; None without init_from.

    A run that `resumes` from a checkpoint does not need them. Raises UserError naming init_from if it cannot be opened
    or is a run of another kind of model.
    """
    if config.init_from is None:
        return None
    named, own = RunDir(Path(config.init_from)), RunDir(config.directory)
    if named.path.resolve() == own.path.resolve():
        raise UserError(f"init_from {config.init_from!r} is the run directory itself: choose another with --run-dir")
    try:
        params = _params_of(config, named)
    except UserError:
        if not (resumes and _has_begun(own, config.init_from)):
            raise
        return Start(own, None, read_json(own.fingerprint).get("init_from"))
    return Start(named, params, content_hash(params))


def check_same_parameters(config: RunConfig, wanted: Params, start: Start) -> None:
    """Raise UserError listing every difference between init_from's parameters and the model's."""
    assert start.params is not None
    want, got = ({name: leaf.shape for name, leaf in by_name(tree).items()} for tree in (wanted, start.params))
    differ = [
        f"{name} is {_extents(got.get(name))} there, {_extents(want.get(name))} here"
        for name in {**want, **got}
        if want.get(name) != got.get(name)
    ]
    if differ:
        theirs = start.run.read_config().model
        if type(theirs).__name__ != type(config.model).__name__:
            raise _other_class(config, theirs)
        raise UserError(f"init_from {config.init_from!r} has other parameters than this model: {'; '.join(differ)}")


def _other_class(config: RunConfig, theirs: ModelConfig) -> UserError:
    ours, got = type(config.model).__name__, type(theirs).__name__
    return UserError(f"init_from wants a run of a {ours}, as this is, got {config.init_from!r} of a {got}")


def _params_of(config: RunConfig, other: RunDir) -> Params:
    with naming("init_from"):
        theirs = open_existing(other.path).read_config().model
        if theirs.predicts_text == config.model.predicts_text:
            return load_parameters(other)[0]
    raise _other_class(config, theirs)


def _has_begun(run: RunDir, init_from: str) -> bool:
    """True if a run began from the one that init_from names, and is done or can be resumed."""
    if not (run.fingerprint.is_file() and (run.eval.exists() or checkpoints.saved(run.checkpoints))):
        return False
    named = open_existing(run.path).read_config().init_from
    return named is not None and Path(named).resolve() == Path(init_from).resolve()


def _extents(shape: tuple[int, ...] | None) -> str:
    return "absent" if shape is None else " x ".join(map(str, shape)) or "a number"
