"""A GptConfig as config.json of Hugging Face: the architecture that has its blocks, or the options that none has."""

import dataclasses
from typing import Any

from jaxlm.config import GptConfig, ModelConfig
from jaxlm.errors import UserError

SAME_FUNCTION = ("dropout", "dtype", "remat", "scan", "attention", "zero_init", "window")
"""Settings that say how a model is trained or computed; its logits are the same without them (a window alone is one
that no layer has)."""
NOWHERE = (
    "qk_norm",
    "attention_softcap",
    "embed_norm",
    "residual_scalars",
    "logit_softcap",
    "value_embeds",
    "documents",
)
"""Settings that no architecture here has unless they have their defaults."""


def architecture_of(config: ModelConfig) -> str:
    """The architecture of transformers that computes what the model does.

    Raises UserError for another model than a GPT, and naming each option that no architecture has.
    """
    if type(config) is not GptConfig:
        raise UserError(f"export wants a run of a GptConfig, got a {type(config).__name__}, which transformers has not")
    if config.norm == "layer" and config.positions == "learned":
        name, wanted = "GPT2LMHeadModel", {"activation": "gelu", "bias": True, "n_kv_heads": None, "d_head": None}
    else:
        name, wanted = "LlamaForCausalLM", {"norm": "rms", "positions": "rotary", "activation": "swiglu"}
        if config.qkv_bias:
            name, wanted = "Qwen2ForCausalLM", {**wanted, "d_head": None}
    plain = function_of(config)
    defaults = {field.name: field.default for field in dataclasses.fields(config) if field.name in NOWHERE}
    lost = [key for key, value in {**wanted, **defaults}.items() if getattr(plain, key) != value]
    options = [f"model.{key} {getattr(plain, key)}" for key in lost]
    if any(plain.windows):
        options.append(f"model.window_pattern {config.window_pattern}")
    if config.d_model % config.n_heads:
        options.append(f"model.d_model {config.d_model}, which the {config.n_heads} heads do not divide")
    if options:
        nearest = f"; the nearest architecture is {name}, with {', '.join(f'{k} {v}' for k, v in wanted.items())}"
        raise UserError(f"export wants blocks that transformers has, got {', '.join(options)}{nearest}")
    return name


def function_of(config: GptConfig) -> GptConfig:
    """The settings of a model that decide its logits, each in one form."""
    same: dict[str, Any] = {
        field.name: field.default for field in dataclasses.fields(config) if field.name in SAME_FUNCTION
    }
    if any(config.windows):
        del same["window"]
    else:
        same["window_pattern"] = "L"
    if config.rope.scaling == "yarn":
        same["rope"] = dataclasses.replace(config.rope, attention_factor=config.rope.amplitude)
    return dataclasses.replace(
        config,
        **same,
        d_ff=config.ff_width,
        n_kv_heads=None if config.kv_heads == config.n_heads else config.kv_heads,
        d_head=None if config.head_width * config.n_heads == config.d_model else config.head_width,
    )


def settings_of(config: GptConfig, name: str) -> dict[str, Any]:
    """The content of config.json, without the numbers of special tokens."""
    common = {
        "architectures": [name],
        "vocab_size": config.vocab_size,
        "tie_word_embeddings": config.tied,
        "initializer_range": 0.02,
        "torch_dtype": "float32",
        "use_cache": True,
    }
    return {**common, **(_gpt2(config) if name == "GPT2LMHeadModel" else _llama(config, name))}


def _gpt2(config: GptConfig) -> dict[str, Any]:
    return {
        "model_type": "gpt2",
        "activation_function": "gelu_new",
        "n_positions": config.context,
        "n_embd": config.d_model,
        "n_layer": config.n_layers,
        "n_head": config.n_heads,
        "n_inner": config.ff_width,
        "layer_norm_epsilon": config.norm_eps,
        **dict.fromkeys(("attn_pdrop", "embd_pdrop", "resid_pdrop"), config.dropout),
    }


def _llama(config: GptConfig, name: str) -> dict[str, Any]:
    made: dict[str, Any] = {
        "model_type": "qwen2" if name == "Qwen2ForCausalLM" else "llama",
        "hidden_act": "silu",
        "hidden_size": config.d_model,
        "intermediate_size": config.ff_width,
        "max_position_embeddings": config.context,
        "num_attention_heads": config.n_heads,
        "num_hidden_layers": config.n_layers,
        "num_key_value_heads": config.kv_heads,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_base,
        "rope_parameters": {"rope_theta": config.rope_base, **_rope(config)},
    }
    if config.rope.scaling != "none":
        made["rope_scaling"] = _rope(config)  # where transformers before 5 looks for it
    if name == "LlamaForCausalLM":
        made |= {"head_dim": config.head_width, "attention_bias": config.bias, "mlp_bias": config.bias}
    else:
        made |= {"use_sliding_window": False}
    return made


def _rope(config: GptConfig) -> dict[str, Any]:
    rope = config.rope
    if rope.scaling == "none":
        return {"rope_type": "default"}
    made: dict[str, Any] = {"rope_type": rope.scaling, "factor": rope.factor}
    if rope.scaling != "linear":
        made["original_max_position_embeddings"] = rope.original_context
    if rope.scaling == "llama3":
        made |= {"low_freq_factor": rope.low, "high_freq_factor": rope.high}
    if rope.scaling == "yarn":
        made |= {"beta_fast": rope.beta_fast, "beta_slow": rope.beta_slow, "attention_factor": rope.amplitude}
    return made
