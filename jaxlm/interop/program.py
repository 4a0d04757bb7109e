"""A run's model as two programs that need no jaxlm: reading a prompt, and drawing a token, as serialised StableHLO.

Both are exported by jax.export for PLATFORMS at once, for one text at a time. docs/formats.md describes them.
"""

from typing import Any, NamedTuple

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from jaxlm.errors import UserError
from jaxlm.inference import sampling
from jaxlm.inference.generate import drawn_tokens
from jaxlm.inference.sampling import RowSettings
from jaxlm.models.base import LanguageModel, Params
from jaxlm.models.check import check_decodes
from jaxlm.ops.target import Target, compiling_for
from jaxlm.runs.loading import Run

PLATFORMS = ("cpu", "cuda", "tpu")
PROMPT = 256
"""Tokens of a prompt that a model without a limit of positions reads at once, or its context where that is more."""
SETTINGS = {"temperature": "float32", "top_k": "int32", "top_p": "float32", "min_p": "float32"}
SETTINGS |= {"repetition_penalty": "float32"}
"""The settings by which a token is drawn, in the order of RowSettings, and the type of each."""
ALLOWED = "allowed"
"""The weight that is no parameter: True for the tokens that are ever drawn."""

Leaves = list[Any]


class Programs(NamedTuple):
    """The two programs of a run, and the arrays that they are called with."""

    prefill: bytes
    """(weights, cache, begins, prompt_1P, length_1) -> cache, serialised."""
    decode: bytes
    """(weights, cache, seen_1V, tok_1, count_1, place_1, key_2, settings) -> (tok_1, cache, seen_1V), serialised."""
    weights: dict[str, np.ndarray]
    """The model's parameters by path, params/a/b, and ALLOWED."""
    cache: list[jax.ShapeDtypeStruct]
    """The leaves of the model's memory of what it has read."""
    prompt: int
    """P, the tokens that the first program takes at once."""


def export_programs(run: Run) -> Programs:
    """Trace and serialise a run's programs. Raises UserError for a model that cannot go on from a cache.

    Attention is the plain form: a device's fused kernel would be of one platform alone.
    """
    serializer()
    check_decodes(run.config.model, run.model)
    model, most = run.model, run.model.max_length
    P = max(PROMPT, model.context or 0) if most is None else most
    weights = named_weights(run)
    names, tree = list(weights)[1:], jax.tree.structure(run.params)
    row = jax.eval_shape(lambda params: model.init_cache(params, 1, P), run.params)
    cache, cache_tree = jax.tree.flatten(row)

    def params_of(weights: dict[str, jax.Array]) -> Params:
        params: Params = jax.tree.unflatten(tree, [weights[name] for name in names])
        return params

    def prefill(
        weights: dict[str, jax.Array], cache: Leaves, begins: jax.Array, prompt_1P: jax.Array, length_1: jax.Array
    ) -> Leaves:
        return _prefill(model, params_of(weights), jax.tree.unflatten(cache_tree, cache), begins, prompt_1P, length_1)

    def decode(
        weights: dict[str, jax.Array],
        cache: Leaves,
        seen_1V: jax.Array,
        tok_1: jax.Array,
        count_1: jax.Array,
        place_1: jax.Array,
        key_2: jax.Array,
        settings: dict[str, jax.Array],
    ) -> tuple[jax.Array, Leaves, jax.Array]:
        state = jax.tree.unflatten(cache_tree, cache), seen_1V, tok_1, count_1, place_1
        rows = RowSettings(*(settings[name] for name in SETTINGS))
        return _decode(model, params_of(weights), *state, key_2, rows, weights[ALLOWED], run.tokenizer.eos)

    abstract = {name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in weights.items()}
    number_1 = jax.ShapeDtypeStruct((1,), jnp.int32)
    settings = {name: jax.ShapeDtypeStruct((1,), jnp.dtype(dtype)) for name, dtype in SETTINGS.items()}
    prompt_1P, begins = jax.ShapeDtypeStruct((1, P), jnp.int32), jax.ShapeDtypeStruct((), jnp.bool_)
    seen_1V, key_2 = jax.ShapeDtypeStruct((1, model.vocab_size), jnp.bool_), jax.ShapeDtypeStruct((2,), jnp.uint32)
    return Programs(
        _serialized(prefill, abstract, cache, begins, prompt_1P, number_1),
        _serialized(decode, abstract, cache, seen_1V, number_1, number_1, number_1, key_2, settings),
        weights,
        cache,
        P,
    )


def serializer() -> None:
    """Import what jax.export serialises with. Raises UserError where it is not installed."""
    try:
        import flatbuffers  # noqa: F401
    except ImportError:
        raise UserError("--program wants the extra: pip install 'jaxlm[export]'") from None


def named_weights(run: Run) -> dict[str, np.ndarray]:
    """ALLOWED, and the parameters by path in the order of their tree, on the host."""
    weights = {ALLOWED: drawn_tokens(run)}
    for path, leaf in jax.tree_util.tree_leaves_with_path(run.params):
        weights[f"params/{jax.tree_util.keystr(path, simple=True, separator='/')}"] = np.asarray(jax.device_get(leaf))
    return weights


def _prefill(
    model: LanguageModel[Any], params: Params, cache: Any, begins: jax.Array, prompt_1P: jax.Array, length_1: jax.Array
) -> Leaves:
    """The cache with the first length_1 tokens of a prompt; that of a new text if it begins."""
    empty = model.init_cache(params, 1, prompt_1P.shape[1])
    cache = jax.tree.map(lambda new, old: jnp.where(begins, new, old), empty, cache)
    _, cache = model.extend(params, cache, prompt_1P, length_1)
    return jax.tree.leaves(cache)


def _decode(
    model: LanguageModel[Any],
    params: Params,
    cache: Any,
    seen_1V: jax.Array,
    tok_1: jax.Array,
    count_1: jax.Array,
    place_1: jax.Array,
    key_2: jax.Array,
    settings: RowSettings,
    allowed_V: jax.Array,
    eos: int,
) -> tuple[jax.Array, Leaves, jax.Array]:
    """The token after tok_1, drawn as `inference.engine` draws it, the cache with tok_1 in it, and the tokens seen."""
    key = jax.random.wrap_key_data(key_2, impl="threefry2x32")
    key_1 = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, place_1)
    logits_11V, cache = model.extend(params, cache, tok_1[:, None], jnp.ones(1, jnp.int32))
    seen_1V = sampling.with_seen(seen_1V, tok_1, eos)
    z_1V = sampling.filtered(logits_11V[:, 0], settings, allowed_V, seen_1V)
    drawn_1 = sampling.draw(sampling.uniform(key_1, count_1, settings), z_1V)
    return drawn_1, jax.tree.leaves(cache), seen_1V


def _serialized(function: Any, *args: Any) -> bytes:
    with compiling_for(Target("cpu")):
        exported = jax.export.export(jax.jit(function), platforms=PLATFORMS)(*args)
    return bytes(exported.serialize())
