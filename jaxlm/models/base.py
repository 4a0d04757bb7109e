"""The interface of every language model, and the one way to offer it for models that see a fixed window."""

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol, Self, TypeVar, cast, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.ops import windows
from jaxlm.ops.losses import nats_and_log_z, nats_per_target
from jaxlm.tokenizers import EOS

Params = dict[str, Any]
"""Nested dicts of arrays with string keys."""

Axes = Mapping[str, tuple[str | None, ...]]
"""The logical axes of each parameter's dimensions, by its path ("a/b"): names of devices.mesh.RULES, by which each is
split over devices, or None for a dimension that is never split."""

BUFFERS = "buffers"
"""The name under which parameters hold arrays that are not trained."""

Cache = TypeVar("Cache")
"""The memory that a model keeps of the tokens each row has read, a tree of arrays."""


class LanguageModel(Protocol[Cache]):
    """Pure functions from parameters and tokens to logits of the next token. Hashable, holds no arrays."""

    @property
    def context(self) -> int | None:
        """Tokens that a prediction can depend on; None: all before it."""
        ...

    @property
    def max_length(self) -> int | None:
        """Tokens of a sequence at most, where positions are learned; None: any number."""
        ...

    @property
    def vocab_size(self) -> int:
        """Tokens in the vocabulary."""
        ...

    @property
    def axes(self) -> Axes:
        """Logical axes of each parameter. A parameter without an entry is replicated on all devices."""
        ...

    def init(self, key: jax.Array, tok_BT: jax.Array) -> Params:
        """Untrained parameters. Only the shape of tok_BT is read."""
        ...

    def apply(self, params: Params, tok_BT: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """logits_BTV of the token after each position. `key` is dropout's; None: no dropout."""
        ...

    def next_logits(self, params: Params, ctx_BC: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """logits_BV of the token after each context of the model's full width."""
        ...

    def next_nats(self, params: Params, ctx_BC: jax.Array, target_B: jax.Array) -> jax.Array:
        """-log p of the token after each context, nats_B, without the other tokens' logits where that can be."""
        ...

    def sequence_nats(
        self, params: Params, tok_BT: jax.Array, target_BT: jax.Array, *, key: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """-log p of the target after each position, without all other tokens' logits where that can be.

        Returns nats_BT and log_z_BT, the logarithm of each position's sum of exp(logits). `key` is dropout's.
        """
        ...

    def init_cache(self, params: Params, batch: int, length: int) -> Cache:
        """Cache of `batch` rows that have read nothing, with room for `length` tokens each."""
        ...

    def extend(self, params: Params, cache: Cache, tok_BT: jax.Array, length_B: jax.Array) -> tuple[jax.Array, Cache]:
        """Read the first length_B[b] tokens of each row, 0 for none: logits_BTV after each, and the cache with them.

        Rows keep positions of their own. logits[b, t] has a meaning for t < length_B[b] only. The caller must ensure
        that a row's tokens fit its room and max_length, which a traced program cannot check.
        """
        ...


class FittedModel(LanguageModel[Cache], Protocol[Cache]):
    """A model whose parameters come from one look at the data."""

    def fit(self, tokens_N: np.ndarray, age_N: np.ndarray) -> tuple[Params, list[str]]:
        """Parameters from a text's tokens, age_N of which precede each one in its own line; notes for the user."""
        ...


@runtime_checkable
class PredictsVectors(Protocol):
    """A model that predicts the next token's vector."""

    @property
    def marks_unknown(self) -> bool:
        """True if token 0 means that no vector is close."""
        ...

    def nearest(self) -> LanguageModel[Any]:
        """The same model, whose logits leave the nearest token alone."""
        ...


@runtime_checkable
class FillsContexts(Protocol):
    """A model with a use for EOS, token 0 or another one: contexts are filled with it before their start."""

    def with_eos(self, eos: int) -> LanguageModel[Any]:
        """The same model for tokens whose EOS is `eos`. Raises UserError where it wants token 0."""
        ...


@runtime_checkable
class RollsBack(Protocol[Cache]):
    """A model that takes tokens back from a cache for less than it costs to read those that stay once more."""

    def rolled_back(self, params: Params, before: Cache, after: Cache, tok_BT: jax.Array, length_B: jax.Array) -> Cache:
        """What `rolled_back`, the function, returns."""
        ...


def rolled_back(
    model: LanguageModel[Cache], params: Params, before: Cache, after: Cache, tok_BT: jax.Array, length_B: jax.Array
) -> Cache:
    """The cache of rows that have read only the first length_B[b] of some tokens, none of them for 0.

    `before` is the cache without tok_BT, `after` the one that has read length_B[b] of them or more.
    """
    if isinstance(model, RollsBack):
        return cast(Cache, model.rolled_back(params, before, after, tok_BT, length_B))
    return model.extend(params, before, tok_BT, length_B)[1]


def axes_of(model: object) -> Axes:
    """The logical axes of a model's parameters, or of a module's; none where it is a user's own that has no `axes`."""
    axes: Axes = getattr(model, "axes", {})
    return axes


def with_buffers(params: Params, buffers: Params | None) -> Params:
    """Parameters as the model's functions take them."""
    return {**params, BUFFERS: buffers} if buffers else params


def without_buffers(params: Params) -> Params:
    """The parameters that are trained."""
    return {name: value for name, value in params.items() if name != BUFFERS}


class NatsFromLogits(abc.ABC):
    """`next_nats` and `sequence_nats` of a model that has the logits of all tokens at once."""

    @abc.abstractmethod
    def apply(self, params: Params, tok_BT: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """logits_BTV after each position."""

    @abc.abstractmethod
    def next_logits(self, params: Params, ctx_BC: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """logits_BV after each context."""

    def next_nats(self, params: Params, ctx_BC: jax.Array, target_B: jax.Array) -> jax.Array:
        """-log softmax(logits)[target]."""
        return nats_per_target(self.next_logits(params, ctx_BC), target_B)

    def sequence_nats(
        self, params: Params, tok_BT: jax.Array, target_BT: jax.Array, *, key: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """-log softmax(logits)[target] after each position, nats_BT, and log_z_BT."""
        logits_BTV = self.apply(params, tok_BT, key=key)
        nats_N, log_z_N = nats_and_log_z(logits_BTV.reshape(-1, logits_BTV.shape[-1]), target_BT.reshape(-1))
        return nats_N.reshape(target_BT.shape), log_z_N.reshape(target_BT.shape)


@dataclasses.dataclass(frozen=True)
class ContextModel(NatsFromLogits):
    """A model of the last `context` tokens: `next_logits` gives the rest of the interface, the cache is the tokens."""

    context: int
    vocab_size: int
    eos: int = dataclasses.field(default=EOS, kw_only=True)
    """The token that fills a context before its start."""

    @property
    def max_length(self) -> None:
        """None: any number of tokens."""

    def with_eos(self, eos: int) -> Self:
        """The same model for tokens whose EOS is `eos`."""
        return dataclasses.replace(self, eos=eos)

    def apply(self, params: Params, tok_BT: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """logits_BTV after each position; EOS stands before the row."""
        return self._over_windows(params, windows(tok_BT, self.context, self.eos), key)

    def init_cache(self, params: Params, batch: int, length: int) -> jax.Array:
        """tok_BC of EOS."""
        return jnp.full((batch, self.context), self.eos, jnp.int32)

    def extend(
        self, params: Params, cache: jax.Array, tok_BT: jax.Array, length_B: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """logits_BTV after each new token, and each row's last `context` tokens."""
        seen_BT, length_B1 = jnp.concatenate([cache, tok_BT], axis=1), length_B[:, None]
        logits_BTV = self._over_windows(params, windows(seen_BT, self.context)[:, self.context :], None)
        if tok_BT.shape[1] == 1:
            return logits_BTV, jnp.where(length_B1 > 0, seen_BT[:, 1:], cache)
        return logits_BTV, jnp.take_along_axis(seen_BT, length_B1 + jnp.arange(self.context)[None], axis=1)

    def _over_windows(self, params: Params, win_BTC: jax.Array, key: jax.Array | None) -> jax.Array:
        B, T, C = win_BTC.shape
        return self.next_logits(params, win_BTC.reshape(B * T, C), key=key).reshape(B, T, self.vocab_size)


@dataclasses.dataclass(frozen=True)
class WindowModel(ContextModel):
    """A ContextModel around a Flax module from ctx_NC to logits_NV."""

    module: nn.Module

    @property
    def axes(self) -> Axes:
        """The module's."""
        return axes_of(self.module)

    def init(self, key: jax.Array, tok_BT: jax.Array) -> Params:
        """Untrained parameters, by the module's initialisers."""
        ctx_NC = jnp.zeros((tok_BT.shape[0], self.context), jnp.int32)
        return self.module.init(key, ctx_NC).get("params", {})

    def next_logits(self, params: Params, ctx_BC: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """logits_BV after each context."""
        rngs = None if key is None else {"dropout": key}
        return cast(jax.Array, self.module.apply({"params": params}, ctx_BC, rngs=rngs))


@dataclasses.dataclass(frozen=True)
class SequenceModel(NatsFromLogits):
    """A model around a Flax module that reads a sequence: `module(tok_BT)`, `module.init_cache`, `module.extend`.

    A module may have `target_nats(tok_BT, target_BT)`, which gives what `sequence_nats` does without all logits.
    """

    module: nn.Module
    context: int | None
    vocab_size: int

    @property
    def max_length(self) -> int | None:
        """As many tokens as there are positions."""
        return self.context

    def with_eos(self, eos: int) -> Self:
        """The same model for tokens whose EOS is `eos`, if its module has a use for it."""
        return dataclasses.replace(self, module=self.module.clone(eos=eos)) if hasattr(self.module, "eos") else self

    @property
    def holds_logits(self) -> bool:
        """True if `sequence_nats` holds the logits of all tokens at all positions at once."""
        return not hasattr(self.module, "target_nats")

    @property
    def axes(self) -> Axes:
        """The module's."""
        return axes_of(self.module)

    def init(self, key: jax.Array, tok_BT: jax.Array) -> Params:
        """Untrained parameters, by the module's initialisers."""
        return self.module.init(key, jnp.zeros((1, 1), jnp.int32)).get("params", {})

    def apply(self, params: Params, tok_BT: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """logits_BTV after each position. Raises ValueError for more tokens than the model has positions."""
        self._check_length(tok_BT)
        return self._apply(params, tok_BT, rngs=None if key is None else {"dropout": key})

    def next_logits(self, params: Params, ctx_BC: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """logits_BV after each context."""
        return self.apply(params, ctx_BC, key=key)[:, -1]

    def sequence_nats(
        self, params: Params, tok_BT: jax.Array, target_BT: jax.Array, *, key: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """-log p of the target after each position, nats_BT, and log_z_BT, by the module's `target_nats` if it has it.

        Raises ValueError for more tokens than the model has positions.
        """
        if self.holds_logits:
            return super().sequence_nats(params, tok_BT, target_BT, key=key)
        self._check_length(tok_BT)
        rngs = None if key is None else {"dropout": key}
        return self._apply(params, tok_BT, target_BT, rngs=rngs, method="target_nats")

    def init_cache(self, params: Params, batch: int, length: int) -> Any:
        """The module's cache of rows that have read nothing."""
        return self._apply(params, batch, length, method="init_cache")

    def extend(self, params: Params, cache: Any, tok_BT: jax.Array, length_B: jax.Array) -> tuple[jax.Array, Any]:
        """logits_BTV after each new token, and the module's cache with each row's tokens in it."""
        return self._apply(params, cache, tok_BT, length_B, method="extend")

    def rolled_back(self, params: Params, before: Any, after: Any, tok_BT: jax.Array, length_B: jax.Array) -> Any:
        """The module's cache after each row's first length_B[b] tokens, by its own `rolled_back` if it has one."""
        if hasattr(self.module, "rolled_back"):
            return self._apply(params, before, after, length_B, method="rolled_back")
        return self.extend(params, before, tok_BT, length_B)[1]

    def _check_length(self, tok_BT: jax.Array) -> None:
        if self.max_length is not None and tok_BT.shape[1] > self.max_length:
            raise ValueError(f"the model has {self.max_length} positions (its context), got {tok_BT.shape[1]} tokens")

    def _apply(self, params: Params, *args: Any, **options: Any) -> Any:
        variables = {"params": without_buffers(params)}
        if BUFFERS in params:
            variables[BUFFERS] = params[BUFFERS]
        return self.module.apply(variables, *args, **options)


def needed(value: int | None, setting: str) -> int:
    """A setting that the model cannot be built without. Raises ValueError while it is left to the data."""
    if value is None:
        raise ValueError(f"{setting} wants a number to build the model, got None")
    return value
