"""Checks of a model that a class in a user's own file builds: shapes and types, before anything is computed."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from jaxlm.config.models import ModelConfig
from jaxlm.config.user_code import failure, is_own
from jaxlm.errors import UserError
from jaxlm.models.base import ContextModel, FillsContexts, LanguageModel, PredictsVectors, SequenceModel
from jaxlm.models.initialization import abstract_state, by_name
from jaxlm.ops import prng
from jaxlm.tokenizers import EOS

MEMBERS = ("context", "max_length", "vocab_size", "init", "apply", "next_logits", "next_nats")
DECODES = ("init_cache", "extend")
"""Members that training and scoring use of a model, and those that sampling uses in addition."""
ROWS, TOKENS = 3, 5
"""Rows of a batch that is tried, and tokens of a row where the model takes as many."""


def build(config: ModelConfig, *, decodes: bool = True, eos: int = EOS) -> LanguageModel[Any]:
    """Build the model of some settings, and check one of a user's own class by tracing its functions on a small batch.

    `eos` is the EOS of its tokens. Checked are what `LanguageModel` (base.py) promises: shapes and types of parameters
    and logits and, if it `decodes`, of `extend` and its cache. Raises UserError with what was wanted and what
    came, or with the line that failed.
    """
    if not is_own(type(config)):
        return _with_eos(config.build(), eos)
    with _blaming(config, "build()"):
        model = config.build()
    _check_members(config, model, decodes)
    if config.trained_by_steps and not isinstance(model, PredictsVectors):
        _Trial(config, model).run(decodes)
    return _with_eos(model, eos)


def _with_eos(model: LanguageModel[Any], eos: int) -> LanguageModel[Any]:
    return model.with_eos(eos) if eos != EOS and isinstance(model, FillsContexts) else model


def check_decodes(config: ModelConfig, model: Any) -> None:
    """Raise UserError if nothing can be sampled from a user's own model, because its module lacks a function."""
    if isinstance(model, SequenceModel):
        lost = [member for member in DECODES if not hasattr(model.module, member)]
        if lost:
            raise UserError(
                f"model class {type(config).__name__}: its {type(model.module).__name__} has no "
                f"{' and no '.join(lost)}, without which nothing is sampled: add it, or train with --sample.n 0"
            )


class _Trial:
    """A model's functions on a batch without values."""

    def __init__(self, config: ModelConfig, model: Any):
        self._config, self._model = config, model
        with _blaming(config, "init"):
            hash(model)
            self._params = abstract_state(model)[0]

    def run(self, decodes: bool) -> None:
        """Check parameters, training, scoring and, if it `decodes`, sampling."""
        self._check_params()
        model, B, V = self._model, ROWS, self._config.vocab_size
        T = TOKENS if model.max_length is None else min(TOKENS, model.max_length)
        C = T if model.context is None else model.context
        tok_BT, ctx_BC, target_B = (jax.ShapeDtypeStruct(shape, jnp.int32) for shape in ((B, T), (B, C), (B,)))
        key, batch = prng.derive(0, prng.DROPOUT), f"{B} rows of {T} tokens"

        def next_logits() -> None:
            came = self._traced("next_logits", lambda p, ctx: model.next_logits(p, ctx, key=key), ctx_BC)
            self._expect("next_logits", f"{B} contexts of {C} tokens", came, (B, V))

        def apply() -> None:
            for dropout in (key, None):
                came = self._traced("apply", lambda p, tok, k=dropout: model.apply(p, tok, key=k), tok_BT)
                self._expect("apply", batch, came, (B, T, V))

        for check in (next_logits, apply) if isinstance(model, ContextModel) else (apply, next_logits):
            check()
        came = self._traced("next_nats", model.next_nats, ctx_BC, target_B)
        self._expect("next_nats", f"{B} contexts", came, (B,))
        if decodes:
            self._check_extend(B, T)

    def _check_params(self) -> None:
        if not isinstance(self._params, dict):
            raise self._error(f"init wants a dict of parameters, got {_shown(self._params)}")
        if not self._params:
            raise self._error("init gives no parameters to train")
        for name, leaf in by_name(self._params).items():
            if not jnp.issubdtype(leaf.dtype, jnp.floating):
                raise self._error(f"parameter {name!r} wants floating numbers, which can be trained, got {leaf.dtype}")

    def _check_extend(self, B: int, T: int) -> None:
        model, V = self._model, self._config.vocab_size
        cache = self._traced("init_cache", lambda p: model.init_cache(p, B, T))
        for tokens in {T, 1}:
            tok_BT, length_B = (jax.ShapeDtypeStruct(shape, jnp.int32) for shape in ((B, tokens), (B,)))
            came = self._traced("extend", model.extend, cache, tok_BT, length_B)
            if not isinstance(came, tuple) or len(came) != 2:
                raise self._error(f"extend wants to return (logits, cache), got {_shown(came)}")
            self._expect("extend", f"{B} rows of {tokens} tokens", came[0], (B, tokens, V))
            was, now = (jax.tree.map(lambda x: f"{x.dtype}{list(x.shape)}", tree) for tree in (cache, came[1]))
            if was != now:
                raise self._error(f"extend wants to return a cache of the shapes it came with, {was}, got {now}")

    def _traced(self, name: str, function: Callable[..., Any], *args: Any) -> Any:
        with _blaming(self._config, name):
            return jax.eval_shape(function, self._params, *args)

    def _expect(self, name: str, of: str, came: Any, wanted: tuple[int | None, ...]) -> None:
        what = "nats" if len(wanted) == 1 else "logits"
        if getattr(came, "shape", None) != wanted:
            raise self._error(f"{name} of {of} wants {what} of shape {wanted}, got {_shown(came)}")
        if not jnp.issubdtype(came.dtype, jnp.floating):
            raise self._error(f"{name} wants {what} as floating numbers, got {came.dtype}")

    def _error(self, reason: str) -> UserError:
        return UserError(f"model class {type(self._config).__name__}: {reason}")


def _check_members(config: ModelConfig, model: Any, decodes: bool) -> None:
    name = f"model class {type(config).__name__}"
    missing = [member for member in (*MEMBERS, *(DECODES if decodes else ())) if not hasattr(model, member)]
    if missing:
        lacks = "got nothing" if model is None else f"got a {type(model).__name__} without {', '.join(missing)}"
        raise UserError(
            f"{name}: build() wants a language model, {lacks}: return a WindowModel or a SequenceModel "
            "(jaxlm.models.base) around your module"
        )
    if decodes:
        check_decodes(config, model)


@contextlib.contextmanager
def _blaming(config: ModelConfig, where: str) -> Iterator[None]:
    """Context that calls a user's own code: its failure becomes a UserError with the line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"model class {type(config).__name__} fails in {where}: {failure(error)}") from error


def _shown(value: Any) -> str:
    """The shape of an array, the type of anything else."""
    if hasattr(value, "shape"):
        return str(value.shape)
    return "nothing" if value is None else f"a {type(value).__name__}"
