"""A run's tokenizer as the files that AutoTokenizer opens."""

from typing import Any

from jaxlm.errors import UserError
from jaxlm.tokenizers import BpeTokenizer, ByteTokenizer, CharTokenizer, Tokenizer, huggingface
from jaxlm.tokenizers.huggingface import ALPHABET, END, Tree
from jaxlm.tokenizers.imported import ImportedTokenizer

BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
"""Every byte is a character of ALPHABET; nothing is cut, as there are no merges."""
FLAGS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}

QWEN2_CUTS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""The pattern by which Qwen2's tokenizer cuts a text."""


def check_opens(name: str, tree: Tree) -> None:
    """Raise UserError for a tokenizer that AutoTokenizer would not open as it is, beside a model of an architecture.

    Of a folder with Qwen2's model transformers 5 takes the tokens alone: it normalizes and cuts a text as Qwen2 does.
    """
    if name != "Qwen2ForCausalLM":
        return
    normalizers = [step["type"] for step in huggingface.steps(tree.get("normalizer"))]
    cuts = [step.get("pattern") for step in huggingface.steps(tree.get("pre_tokenizer"))]
    if normalizers != ["NFC"] or cuts != [{"Regex": QWEN2_CUTS}, None]:
        raise UserError(
            "export wants Qwen2's tokenizer for model.qkv_bias True, which Qwen2ForCausalLM alone has, got another "
            "one: AutoTokenizer would read it as Qwen2's; train with --model.qkv-bias False"
        )


def files_of(tokenizer: Tokenizer, context: int | None, *, begins: bool) -> dict[str, Any]:
    """The content of tokenizer.json and tokenizer_config.json.

    `begins`: texts are encoded with EOS before them, as a run on lines or dialogues was trained. Raises UserError for a
    tokenizer that cannot be written as byte-pair encoding.
    """
    tree = _tree(tokenizer)
    names = {number: name for name, number in huggingface.special(tree).items()}
    eos, bos = names[tokenizer.eos], names[tokenizer.bos]
    if begins and not tokenizer.prefix:
        tree = {**tree, "post_processor": _template(bos, tokenizer.bos)}
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": bos,
        "eos_token": eos,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
    }
    if context is not None:
        settings["model_max_length"] = context
    if isinstance(tokenizer, ImportedTokenizer) and list(tokenizer.prefix) == [tokenizer.bos]:
        tree = {**tree, "post_processor": _template(bos, tokenizer.bos)}
    if tokenizer.chat_template is not None:
        settings["chat_template"] = tokenizer.chat_template
    first = {"version": "1.0", "truncation": None, "padding": None}
    return {"tokenizer.json": {**first, **tree}, "tokenizer_config.json": settings}


def _tree(tokenizer: Tokenizer) -> Tree:
    if isinstance(tokenizer, BpeTokenizer):
        tree: Tree = tokenizer.to_json()["huggingface"]
        byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
        return tree if tree.get("decoder") else {**tree, "decoder": byte_level}
    if isinstance(tokenizer, ByteTokenizer):
        vocab = {char: 1 + byte for char, byte in ALPHABET.items()}
        return _without_merges(vocab, BYTE_LEVEL, BYTE_LEVEL)
    if isinstance(tokenizer, CharTokenizer):
        if any("\ud800" <= char <= "\udfff" for char in tokenizer.characters):
            raise UserError("export wants characters that UTF-8 has, got half of a surrogate pair in the tokenizer")
        return _without_merges({char: 1 + i for i, char in enumerate(tokenizer.characters)}, None, {"type": "Fuse"})
    raise UserError(
        f"export wants tokens of bytes, characters or byte-pair encoding, got a {type(tokenizer).__name__}, which "
        "transformers has not: train with --data.tokens bpe"
    )


def _without_merges(vocab: dict[str, int], cut: Tree | None, decoder: Tree) -> Tree:
    """Byte-pair encoding in which every character is a token, and EOS, number 0, a special one."""
    return {
        "added_tokens": [{"id": 0, "content": END, **FLAGS}],
        "normalizer": None,
        "pre_tokenizer": cut,
        "post_processor": None,
        "decoder": decoder,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {END: 0, **vocab},
            "merges": [],
        },
    }


def _template(name: str, number: int) -> Tree:
    """The post-processor that puts a special token before a text."""
    first, text = {"SpecialToken": {"id": name, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    second = {"Sequence": {"id": "B", "type_id": 1}}
    return {
        "type": "TemplateProcessing",
        "single": [first, text],
        "pair": [first, text, second],
        "special_tokens": {name: {"id": name, "ids": [number], "tokens": [name]}},
    }
