"""Where each of a GPT's parameters lies in the tensors of GPT-2 and of the Llama family, and in which form."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from jaxlm.config import GptConfig


class Source(NamedTuple):
    """A parameter's place among another program's tensors: all of one, or a part of its last axis.

    A matrix of theirs has two axes, inputs and outputs, where ours has heads apart.
    """

    tensor: str
    """Its name; {} stands for the layer."""
    inputs: int = 0
    """Leading axes of ours (without the layers') that are inputs; 0: a vector, or heads of one."""
    turned: bool = False
    """True if theirs has outputs first, as torch's Linear; GPT-2's Conv1D has inputs first."""
    part: tuple[int, int] = (0, 1)
    """(i, n): ours is the i-th of n parts of theirs, side by side along its outputs."""

    def flat(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Ours as (inputs, outputs), or as a vector."""
        if not self.inputs:
            return (math.prod(shape),)
        return math.prod(shape[: self.inputs]), math.prod(shape[self.inputs :])

    def their_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of their whole tensor, of which a layer of ours has `shape`."""
        *rest, last = self.flat(shape)
        whole = (*rest, last * self.part[1])
        return whole[::-1] if self.turned else whole

    def ours(self, theirs: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """A layer of ours out of their tensor."""
        place, parts = self.part
        x = theirs.T if self.turned else theirs
        width = x.shape[-1] // parts
        return x[..., place * width : (place + 1) * width].reshape(shape)

    def theirs(self, ours: np.ndarray) -> np.ndarray:
        """Their tensor, or the part of it that ours is."""
        x = ours.reshape(self.flat(ours.shape))
        return x.T if self.turned else x


class Place(NamedTuple):
    """A parameter, a layer of it where it has layers, and its source there."""

    name: str
    layer: int | None
    source: Source
    shape: tuple[int, ...]
    """Of the parameter, without the layers' axis."""


def places(config: GptConfig, shapes: dict[str, tuple[int, ...]]) -> dict[str, list[Place]]:
    """Every tensor that a model of these settings has, by its name: the parameters in it, in their order along it.

    `shapes` are those of the parameters, the layers' axis included.
    """
    found: dict[str, list[Place]] = {}
    for name, source in sources(config).items():
        has_layers = "{}" in source.tensor
        for layer in range(config.n_layers) if has_layers else (None,):
            shape = shapes[name][1:] if has_layers else shapes[name]
            found.setdefault(source.tensor.format(layer), []).append(Place(name, layer, source, shape))
    return found


def sources(config: GptConfig) -> dict[str, Source]:
    """The source of each parameter of a model whose form is GPT-2's or the Llama family's."""
    return dict(_gpt2(config) if config.norm == "layer" else _llama(config))


def ignored(name: str) -> bool:
    """True for a tensor that is no parameter: masks of older GPT-2s, and rates of rotary positions."""
    return name.endswith((".attn.bias", ".attn.masked_bias", "rotary_emb.inv_freq"))


def _gpt2(config: GptConfig) -> Iterator[tuple[str, Source]]:
    block = "transformer.h.{}."
    yield "embed", Source("transformer.wte.weight", 1)
    yield "position", Source("transformer.wpe.weight", 1)
    for number in (1, 2):
        yield f"norm{number}_scale", Source(f"{block}ln_{number}.weight")
        yield f"norm{number}_bias", Source(f"{block}ln_{number}.bias")
    for i, name in enumerate("qkv"):
        yield name, Source(f"{block}attn.c_attn.weight", 1, part=(i, 3))
        yield f"{name}_bias", Source(f"{block}attn.c_attn.bias", part=(i, 3))
    yield "attend", Source(f"{block}attn.c_proj.weight", 2)
    yield "attend_bias", Source(f"{block}attn.c_proj.bias")
    for name, theirs in (("up", "c_fc"), ("down", "c_proj")):
        yield name, Source(f"{block}mlp.{theirs}.weight", 1)
        yield f"{name}_bias", Source(f"{block}mlp.{theirs}.bias")
    yield "norm_scale", Source("transformer.ln_f.weight")
    yield "norm_bias", Source("transformer.ln_f.bias")
    if not config.tied:
        yield "out", Source("lm_head.weight", 1)


def _llama(config: GptConfig) -> Iterator[tuple[str, Source]]:
    block = "model.layers.{}."
    yield "embed", Source("model.embed_tokens.weight", 1)
    yield "norm1_scale", Source(f"{block}input_layernorm.weight")
    for name in "qkv":
        yield name, Source(f"{block}self_attn.{name}_proj.weight", 1, turned=True)
        if config.bias or config.qkv_bias:
            yield f"{name}_bias", Source(f"{block}self_attn.{name}_proj.bias")
    yield "attend", Source(f"{block}self_attn.o_proj.weight", 2, turned=True)
    yield "norm2_scale", Source(f"{block}post_attention_layernorm.weight")
    for name in ("gate", "up", "down"):
        yield name, Source(f"{block}mlp.{name}_proj.weight", 1, turned=True)
        if config.bias:
            yield f"{name}_bias", Source(f"{block}mlp.{name}_proj.bias")
    if config.bias:
        yield "attend_bias", Source(f"{block}self_attn.o_proj.bias")
    yield "norm_scale", Source("model.norm.weight")
    if not config.tied:
        yield "out", Source("lm_head.weight", 1)


def shapes_of(params: Any) -> dict[str, tuple[int, ...]]:
    """The shape of each parameter by its name."""
    return {name: tuple(leaf.shape) for name, leaf in params.items()}
