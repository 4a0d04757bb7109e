"""config.json of Hugging Face as a GptConfig: the families that are known, and the options that have no counterpart."""

import difflib
from collections.abc import Callable, Mapping
from typing import Any, Literal

from jaxlm.config import GptConfig, RopeConfig
from jaxlm.config.rope import yarn_amplitude
from jaxlm.errors import UserError, naming

Json = Mapping[str, Any]
Dtype = Literal["float32", "bfloat16"]

GELU_BY_TANH = ("gelu_new", "gelu_pytorch_tanh", "gelu_fast", "gelu_python_tanh")
"""Names of GELU's approximation by tanh."""


def gpt_config(settings: Json, dtype: Dtype = "float32") -> GptConfig:
    """The model that config.json describes.

    Raises UserError for an architecture that is not known, with the nearest one that is, and for all of its options
    together that this package does not have.
    """
    name = architecture(settings)
    if settings.get("auto_map"):
        raise UserError("import wants an architecture of transformers itself, got auto_map, which names code to run")
    _refuse_others(name, settings)
    with naming("import"):
        return FAMILIES[name](settings, dtype)


def architecture(settings: Json) -> str:
    """The name of the architecture. Raises UserError for one that is not known."""
    names = settings.get("architectures") or []
    by_type = {"gpt2": "GPT2LMHeadModel", "llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM"}
    by_type["qwen2"] = "Qwen2ForCausalLM"
    name = names[0] if names and isinstance(names[0], str) else by_type.get(str(settings.get("model_type")))
    if name in FAMILIES:
        return name
    if name is None:
        raise UserError(f"import wants architectures in config.json, one of {', '.join(FAMILIES)}, got none")
    near = difflib.get_close_matches(name, FAMILIES, n=1, cutoff=0)[0]
    raise UserError(f"import wants one of {', '.join(FAMILIES)}, got {name}; the nearest of them is {near}")


def _refuse_others(name: str, settings: Json) -> None:
    """Raise UserError listing every option whose value means a computation that this package does not have."""
    wrong = []
    for key, allowed in (COMMON | OPTIONS[name]).items():
        if key in settings and settings[key] not in allowed:
            wrong.append(f"{key} {settings[key]!r} (it has {' or '.join(map(repr, allowed))})")
    if settings.get("quantization_config"):
        wrong.append("quantization_config (it has weights of float32, float16 and bfloat16)")
    if name != "GPT2LMHeadModel":
        wrong += _windows(settings, name)
        if bool(settings.get("attention_bias")) != bool(settings.get("mlp_bias")):
            biases = ", ".join(f"{key} {bool(settings.get(key))}" for key in ("attention_bias", "mlp_bias"))
            wrong.append(f"{biases} (it has both or none)")
    if wrong:
        raise UserError(f"import wants a {name} whose options jaxlm has, got {'; '.join(wrong)}")


def _windows(settings: Json, name: str) -> list[str]:
    """The reason why attention does not see all tokens so far, if it does not."""
    context, window = settings.get("max_position_embeddings"), settings.get("sliding_window")
    if name == "MistralForCausalLM" and "sliding_window" not in settings:
        window = 4096  # the default of transformers
    sliding = settings.get("use_sliding_window") if name == "Qwen2ForCausalLM" else name == "MistralForCausalLM"
    kinds = settings.get("layer_types") or []
    if sliding and isinstance(window, int) and isinstance(context, int) and window < context:
        return [f"sliding_window {window} below the {context} positions (it has windows of all positions)"]
    others = sorted({str(kind) for kind in kinds} - {"full_attention"}) if name != "MistralForCausalLM" else []
    return [f"layer_types with {others[0]} (it has full_attention)"] if others else []


def _gpt2(settings: Json, dtype: Dtype) -> GptConfig:
    width = _whole(settings, "n_embd")
    inner = settings.get("n_inner")
    return GptConfig(
        vocab_size=_whole(settings, "vocab_size"),
        context=_whole(settings, "n_positions", settings.get("n_ctx")),
        n_layers=_whole(settings, "n_layer"),
        n_heads=_whole(settings, "n_head"),
        d_model=width,
        d_ff=None if inner is None or inner == 4 * width else _whole(settings, "n_inner"),
        norm_eps=_number(settings, "layer_norm_epsilon", 1e-5),
        tied=bool(settings.get("tie_word_embeddings", True)),
        dtype=dtype,
    )


def _llama(settings: Json, dtype: Dtype, *, qkv_bias: bool = False, kv_heads: int | None = None) -> GptConfig:
    width, heads = _whole(settings, "hidden_size"), _whole(settings, "num_attention_heads")
    base, rope = _rope(settings)
    head = settings.get("head_dim")
    kv = settings.get("num_key_value_heads", kv_heads)  # null: as many as of queries
    kv = heads if kv is None else _whole({"num_key_value_heads": kv}, "num_key_value_heads")
    return GptConfig.llama(
        vocab_size=_whole(settings, "vocab_size"),
        context=_whole(settings, "max_position_embeddings"),
        n_layers=_whole(settings, "num_hidden_layers"),
        n_heads=heads,
        n_kv_heads=None if kv == heads else kv,
        d_model=width,
        d_head=None if head is None or head * heads == width else _whole(settings, "head_dim"),
        d_ff=_whole(settings, "intermediate_size"),
        norm_eps=_number(settings, "rms_norm_eps", 1e-6),
        rope_base=base,
        rope=rope,
        bias=bool(settings.get("attention_bias")),
        qkv_bias=qkv_bias,
        tied=bool(settings.get("tie_word_embeddings", False)),
        dtype=dtype,
    )


def _mistral(settings: Json, dtype: Dtype) -> GptConfig:
    return _llama(settings, dtype, kv_heads=8)


def _qwen2(settings: Json, dtype: Dtype) -> GptConfig:
    return _llama(settings, dtype, qkv_bias=True, kv_heads=32)


def _rope(settings: Json) -> tuple[float, RopeConfig]:
    """The base of rotary positions, and how their rates are scaled, by rope_parameters or by the older two settings.

    "dynamic" changes nothing up to max_position_embeddings, which is the model's context here. Raises UserError for a
    scaling that is not known.
    """
    found = settings.get("rope_parameters") or settings.get("rope_scaling") or {}
    if not isinstance(found, dict):
        raise UserError(f"rope_scaling wants an object or null, got {found!r}")
    base = _number(found, "rope_theta", settings.get("rope_theta", 10_000.0))
    kind = found.get("rope_type", found.get("type", "default"))
    share = found.get("partial_rotary_factor", settings.get("partial_rotary_factor", 1.0))
    if share != 1:
        raise UserError(f"partial_rotary_factor wants 1, got {share}")
    if kind in ("default", "dynamic"):
        return base, RopeConfig()
    length = found.get("original_max_position_embeddings", settings.get("max_position_embeddings"))
    length = settings.get("original_max_position_embeddings", length)
    factor = found.get("factor") or settings.get("max_position_embeddings", 1) / (length or 1)
    if kind == "linear":
        return base, RopeConfig(scaling="linear", factor=float(factor))
    if kind == "llama3":
        low, high = _number(found, "low_freq_factor", 1.0), _number(found, "high_freq_factor", 4.0)
        rope = RopeConfig(scaling="llama3", factor=float(factor), original_context=length, low=low, high=high)
        return base, rope
    if kind == "yarn":
        if not found.get("truncate", True):
            raise UserError("rope_scaling wants truncate true of yarn, got false")
        rope = RopeConfig(
            scaling="yarn",
            factor=float(factor),
            original_context=length,
            beta_fast=float(found.get("beta_fast") or 32),
            beta_slow=float(found.get("beta_slow") or 1),
            attention_factor=_attention_factor(found, float(factor)),
        )
        return base, rope
    raise UserError(f"rope_scaling wants default, linear, dynamic, llama3 or yarn, got {kind}")


def _attention_factor(found: Json, factor: float) -> float | None:
    """Yarn's attention_factor; by mscale and mscale_all_dim where those are given. None: by factor alone."""
    if found.get("attention_factor") is not None:
        return _number(found, "attention_factor", 1.0)
    if found.get("mscale") and found.get("mscale_all_dim"):
        scale, whole = (yarn_amplitude(factor, found[key]) for key in ("mscale", "mscale_all_dim"))
        return scale / whole
    return None


def _whole(settings: Json, key: str, default: Any = None) -> int:
    value = settings.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool):
        raise UserError(f"config.json wants a whole number as {key}, got {value!r}")
    return value


def _number(settings: Json, key: str, default: Any) -> float:
    value = settings.get(key, default)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise UserError(f"config.json wants a number as {key}, got {value!r}")
    return float(value)


FAMILIES: dict[str, Callable[[Json, Dtype], GptConfig]] = {
    "GPT2LMHeadModel": _gpt2,
    "LlamaForCausalLM": _llama,
    "MistralForCausalLM": _mistral,
    "Qwen2ForCausalLM": _qwen2,
}
"""The architectures that are known."""

COMMON: dict[str, tuple[Any, ...]] = {"is_encoder_decoder": (False,), "add_cross_attention": (False,)}
LLAMAS: dict[str, tuple[Any, ...]] = {"hidden_act": ("silu", "swish")}
OPTIONS: dict[str, dict[str, tuple[Any, ...]]] = {
    "GPT2LMHeadModel": {
        "activation_function": GELU_BY_TANH,
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
    },
    "LlamaForCausalLM": LLAMAS,
    "MistralForCausalLM": LLAMAS,
    "Qwen2ForCausalLM": LLAMAS,
}
"""Values that options must have where config.json has them, by architecture."""
