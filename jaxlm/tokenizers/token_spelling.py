"""The bytes of text that each token of a Hugging Face tokenizer stands for, by the way its decoder reads tokens."""

import re
from typing import Literal

from jaxlm.tokenizers.huggingface import ALPHABET, MOST_TOKENS, Tree, ordinary, special, steps

Spelling = Literal["bytes", "blanks", "plain"]
"""How tokens are written in a vocabulary. bytes: a character for each byte, by ALPHABET. blanks: text with U+2581 for a
blank, and <0x0A> for a byte, as sentencepiece has it. plain: text as it is."""
BLANK = "\u2581"
BYTE = re.compile(r"<0x([0-9A-F]{2})>")
"""The name of a byte's token where tokens are characters."""


def spelling(tree: Tree) -> Spelling | None:
    """How tokens are written, by the decoder, or the pre-tokenizer where there is none; None: in another way."""
    kinds = [step["type"] for step in steps(tree.get("decoder"))]
    if "ByteLevel" in kinds or (not kinds and "ByteLevel" in [step["type"] for step in steps(tree["pre_tokenizer"])]):
        return "bytes"
    blanks = [step for step in steps(tree.get("decoder")) if step["type"] == "Replace"]
    if "Metaspace" in kinds or any(step["pattern"] == {"String": BLANK} for step in blanks):
        return "blanks"
    return "plain" if set(kinds) <= {"Fuse"} and kinds else None


def refusal(tree: Tree) -> str | None:
    """The reason for which a tree cannot be an `ImportedTokenizer`; None where it can."""
    model = tree["model"]
    if model.get("type", "BPE") != "BPE" or not isinstance(model.get("vocab"), dict):
        return f"a {model.get('type')} model"
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        return "BPE that marks the parts of words"
    written = spelling(tree)
    if written is None:
        kinds = [step["type"] for step in steps(tree.get("decoder"))]
        return f"the decoder {' + '.join(kinds) or 'none'}"
    vocab = model["vocab"]
    if written == "bytes" and (missing := [byte for char, byte in ALPHABET.items() if char not in vocab]):
        return f"no token for the byte 0x{min(missing):02X}"
    numbers = [*vocab.values(), *(token["id"] for token in tree.get("added_tokens") or [])]
    if not all(isinstance(number, int) and 0 <= number < MOST_TOKENS for number in numbers):
        return f"token numbers that are not from 0 to {MOST_TOKENS:,}"
    return None


def token_bytes(tree: Tree) -> list[bytes]:
    """The bytes that each token stands for: none for special tokens and for numbers without a token."""
    written = spelling(tree)

    def raw(text: str) -> bytes:
        if written == "bytes" and all(char in ALPHABET for char in text):
            return bytes(map(ALPHABET.__getitem__, text))
        if written == "blanks":
            byte = BYTE.fullmatch(text)
            return bytes([int(byte[1], 16)]) if byte else text.replace(BLANK, " ").encode()
        return text.encode()

    made = {token: raw(text) for text, token in tree["model"]["vocab"].items()}
    made |= {token["id"]: token["content"].encode() for token in ordinary(tree)}
    made |= dict.fromkeys(special(tree).values(), b"")
    return [made.get(token, b"") for token in range(max(made) + 1)]


def keeps_text(tree: Tree) -> bool:
    """True if no step changes a text before it is encoded: it is decoded to itself, or has no tokens."""
    if spelling(tree) == "blanks" or list(steps(tree.get("normalizer"))):
        return False
    cuts = list(steps(tree.get("pre_tokenizer")))
    drops = any(step.get("behavior") == "Removed" for step in cuts)
    adds = any(step["type"] == "ByteLevel" and step.get("add_prefix_space", True) for step in cuts)
    others = {step["type"] for step in cuts} - {"ByteLevel", "Split", "Digits"}
    return not (drops or adds or others or any(token.get("lstrip") or token.get("rstrip") for token in ordinary(tree)))


def may_cut(tree: Tree) -> bool:
    """True if a long text may be encoded in parts: its pre-tokenizer cuts it, and no step looks beyond a part."""
    unchanged = {step["type"] for step in steps(tree.get("normalizer"))} <= {"NFC"}
    cuts = list(steps(tree.get("pre_tokenizer")))
    adds = any(step["type"] == "ByteLevel" and step.get("add_prefix_space", True) for step in cuts)
    return spelling(tree) == "bytes" and unchanged and bool(cuts) and not adds
