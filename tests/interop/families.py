"""Small random models of each family, and their tokenizers, as transformers writes them to a folder."""

import functools
import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

TRAIN = "the king and the queen rule the land near the water. It's 1999, isn't 2000!\n日本 日本 é naïve 😀😀\n" * 5
LLAMA3_CUTS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
V = 320
GPT2: dict[str, Any] = {"vocab_size": V, "n_positions": 96, "n_embd": 32, "n_layer": 2, "n_head": 4}
LLAMA: dict[str, Any] = {
    "vocab_size": V,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 96,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
YARN = {"rope_type": "yarn", "rope_theta": 500.0, "factor": 4.0, "original_max_position_embeddings": 24}
LINEAR = {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 2.0}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 2.0}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2", GPT2),
    "gpt2 untied": ("GPT2", {**GPT2, "n_inner": 40, "layer_norm_epsilon": 1e-3, "tie_word_embeddings": False}),
    "llama": ("Llama", {**LLAMA, "num_key_value_heads": 4, "rms_norm_eps": 1e-3}),
    "llama3": ("Llama", {**LLAMA, "rope_parameters": LLAMA3_ROPE, "head_dim": 12}),
    "biased": ("Llama", {**LLAMA, "attention_bias": True, "mlp_bias": True, "rope_parameters": LINEAR}),
    "smollm2": ("Llama", {**LLAMA, "tie_word_embeddings": True, "rope_parameters": DYNAMIC}),
    "mistral": ("Mistral", {**LLAMA, "sliding_window": None, "head_dim": 8}),
    "qwen2": ("Qwen2", {**LLAMA, "tie_word_embeddings": True}),
    "yarn": ("Qwen2", {**LLAMA, "rope_parameters": YARN}),
}
"""Each family's class in transformers and its settings."""


@functools.cache
def model(name: str) -> Any:
    """A model whose every parameter is random, as a trained one's are."""
    family, settings = FAMILIES[name]
    config = getattr(transformers, f"{family}Config")(**settings, bos_token_id=0, eos_token_id=0)
    head = "LMHeadModel" if family == "GPT2" else "ForCausalLM"
    generator = torch.Generator().manual_seed(1)
    made = getattr(transformers, f"{family}{head}")(config).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return made


def _trained(tokenizer: Any, **options: Any) -> Any:
    trainer = tokenizers.trainers.BpeTrainer(show_progress=False, **options)
    tokenizer.train_from_iterator([TRAIN], trainer)
    return tokenizer


@functools.cache
def tokenizer(kind: str) -> Any:
    """gpt2, llama3 (cuts by a pattern, BOS before a text), smollm2 (digits alone), qwen2 (NFC), or llama2."""
    t, special = tokenizers, {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}
    if kind == "llama2":
        return _llama2()
    made = t.Tokenizer(t.models.BPE())
    byte_level = t.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=kind in ("gpt2", "smollm2"))
    first = {
        "gpt2": [],
        "smollm2": [t.pre_tokenizers.Digits(individual_digits=True)],
        "llama3": [t.pre_tokenizers.Split(t.Regex(LLAMA3_CUTS), "isolated")],
        "qwen2": [t.pre_tokenizers.Split(t.Regex(LLAMA3_CUTS.replace("{1,3}", "")), "isolated")],
    }[kind]
    made.pre_tokenizer = t.pre_tokenizers.Sequence([*first, byte_level])
    made.decoder = t.decoders.ByteLevel()
    if kind == "qwen2":
        made.normalizer = t.normalizers.NFC()
    names = ["<|endoftext|>"]
    if kind == "llama3":
        names, special = ["<|begin|>", "<|end|>", "<|eot|>"], {"bos_token": "<|begin|>", "eos_token": "<|eot|>"}
    _trained(made, vocab_size=V - 2, special_tokens=names, initial_alphabet=t.pre_tokenizers.ByteLevel.alphabet())
    if kind == "llama3":
        made.post_processor = t.processors.TemplateProcessing(
            single="<|begin|> $A", special_tokens=[("<|begin|>", made.token_to_id("<|begin|>"))]
        )
    if kind == "qwen2":
        made.add_special_tokens(["<|im_start|>"])
        made.add_tokens(["<tool>"])
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, **special)


def _llama2() -> Any:
    """Sentencepiece's BPE as transformers has it: a blank is U+2581, one stands before a text, the rest is bytes."""
    t = tokenizers
    made = t.Tokenizer(t.models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    made.pre_tokenizer = t.pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
    made.decoder = t.decoders.Sequence(
        [t.decoders.Replace("▁", " "), t.decoders.ByteFallback(), t.decoders.Fuse(), t.decoders.Strip(" ", 1, 0)]
    )
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    _trained(made, vocab_size=V, special_tokens=["<unk>", "<s>", "</s>", *bytes_], limit_alphabet=25)
    tree = json.loads(made.to_str())
    tree["added_tokens"] = tree["added_tokens"][:3]
    made = t.Tokenizer.from_str(json.dumps(tree))
    made.post_processor = t.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def tokenizer_of(name: str) -> str:
    """The kind of tokenizer that a family has here: Qwen2's has its own, which transformers takes for granted."""
    return "qwen2" if FAMILIES[name][0] == "Qwen2" else "gpt2"


def saved(folder: Path, name: str = "gpt2", kind: str | None = None, **options: Any) -> Path:
    """The folder that transformers writes of a model and a tokenizer."""
    model(name).save_pretrained(folder, **options)
    tokenizer(kind or tokenizer_of(name)).save_pretrained(folder)
    return folder


def edit(path: Path, **changes: Any) -> None:
    """Set fields of a JSON file; None takes one away."""
    tree = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in tree.items() if value is not None}))
