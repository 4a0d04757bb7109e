"""Byte-level BPE as a tree: Hugging Face's tokenizer.json, trained here or read from files."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxlm.errors import UserError, near_path, reading
from jaxlm.tokenizers.base import utf8
from jaxlm.tokenizers.long_texts import pieces

Tree = dict[str, Any]
"""The content of a tokenizer.json. The parts that are read: model.vocab, model.merges, added_tokens, pre_tokenizer."""

END = "<|endoftext|>"
"""GPT-2's name for the end of a document, and that of a vocabulary that is trained here."""
FILES = (("encoder.json", "vocab.bpe"), ("vocab.json", "merges.txt"))
"""Names of GPT-2's two files: OpenAI's, and Hugging Face's for the same content."""
MOST_TOKENS = 2**24
"""Numbers of tokens are below it."""
SPLITTERS = ("ByteLevel", "Split", "Digits")
"""Pre-tokenizers that only cut a text. Others, as Whitespace and Metaspace, drop or add blanks."""


def _alphabet() -> dict[str, int]:
    """The byte that each character of a byte-level vocabulary stands for (bytes_to_unicode of GPT-2's encoder.py).

    Visible bytes of Latin-1 stand for themselves, the others in order for the characters from U+0100 on.
    """
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in visible]
    return {chr(byte): byte for byte in visible} | {chr(256 + i): byte for i, byte in enumerate(others)}


ALPHABET = _alphabet()


def library() -> Any:
    """Import Hugging Face's `tokenizers`, late: 25 ms. Raises UserError where it is not installed."""
    try:
        import tokenizers
    except ImportError:
        raise UserError("data.tokens BpeConfig() wants the extra: pip install 'jaxlm[bpe]'") from None
    return tokenizers


def trained(texts: Iterable[str], vocab_size: int) -> Tree:
    """Merge the most frequent pairs of adjacent tokens of some texts until there are `vocab_size` tokens, at most.

    Token 0 is END, 1 to 256 are the bytes. No merge crosses the parts into which GPT-2's pattern cuts a text: a word
    with the blank before it, digits, other signs, white space (Sennrich et al. 2016; Radford et al. 2019, section 2.2).
    """
    hugging = library()
    tokenizer = hugging.Tokenizer(hugging.models.BPE())
    tokenizer.pre_tokenizer = hugging.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = hugging.decoders.ByteLevel()
    trainer = hugging.trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=[END],
        initial_alphabet=sorted(ALPHABET),
        show_progress=False,
    )

    def parts() -> Iterator[str]:
        for text in texts:
            for piece in pieces(text):
                utf8(piece)  # names a character that has no UTF-8
                yield piece

    tokenizer.train_from_iterator(parts(), trainer)
    return brief(json.loads(tokenizer.to_str()))


def opened(path: Path) -> Tree:
    """Read a directory with GPT-2's two files or a tokenizer.json, or such a file itself.

    Raises UserError, naming data.tokens.path, where there is none or it does not keep every text as it is.
    """
    if path.is_dir():
        for vocab, merges in FILES:
            if (path / vocab).exists() and (path / merges).exists():
                return checked(_of_files(path / vocab, path / merges), path)
        if not (path / "tokenizer.json").exists():
            raise UserError(
                f"data.tokens.path wants a directory with tokenizer.json or with encoder.json and vocab.bpe, got "
                f"{str(path)!r}, which has none of them{near_path(path)}"
            )
        path = path / "tokenizer.json"
    tree = _json(path)
    if not isinstance(tree, dict) or not isinstance(tree.get("model"), dict):
        raise UserError(f"data.tokens.path wants Hugging Face's tokenizer.json, got {str(path)!r}, which has no model")
    return checked(tree, path)


def checked(tree: Tree, path: Path) -> Tree:
    """The tree, brief. Raises UserError unless it is byte-level BPE that gives every text back."""
    model, vocab = tree["model"], tree["model"].get("vocab")
    splitters = list(steps(tree.get("pre_tokenizer")))
    kinds = [splitter.get("type") for splitter in splitters]
    bytes_of = [splitter for splitter in splitters if splitter.get("type") == "ByteLevel"]
    added = {token["content"]: token["id"] for token in _added(tree)}
    reason = None
    if model.get("type", "BPE") != "BPE" or not isinstance(vocab, dict) or not bytes_of:
        reason = f"a {model.get('type', 'model')} cut by {', '.join(map(str, kinds)) or 'nothing'}"
    elif other := [kind for kind in kinds if kind not in SPLITTERS]:
        reason = f"one cut by {other[0]}"
    elif any(splitter.get("add_prefix_space", True) for splitter in bytes_of):
        reason = "one that adds a blank before a text (add_prefix_space)"
    elif any(splitter.get("behavior") == "Removed" for splitter in splitters):
        reason = "one that drops what it cuts at (behavior Removed)"
    elif normalizers := list(steps(tree.get("normalizer"))):
        reason = f"one that changes a text first (normalizer {normalizers[0].get('type')})"
    elif model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        reason = "one that marks the ends of words"
    elif stripping := [token["content"] for token in ordinary(tree) if token.get("lstrip") or token.get("rstrip")]:
        reason = f"one whose token {stripping[0]!r} takes the blanks beside it"
    elif missing := [byte for char, byte in ALPHABET.items() if char not in vocab]:
        reason = f"one without the byte 0x{min(missing):02X}"
    elif strange := [text for text in vocab if text not in added and not _is_bytes(text)]:
        reason = f"one whose token {strange[0]!r} is not written in bytes"
    elif len(set(numbers := [*vocab.values(), *added.values()])) < len({*vocab, *added}) or max(numbers) >= MOST_TOKENS:
        reason = f"one whose tokens have no numbers of their own below {MOST_TOKENS:,}"
    if reason:
        raise UserError(
            f"data.tokens.path wants byte-level BPE that keeps every text as it is, got {reason} in {str(path)!r}"
        )
    return brief(tree)


def special(tree: Tree) -> dict[str, int]:
    """The special tokens by name; a single character that is one too stays text."""
    return {token["content"]: token["id"] for token in _added(tree) if _is_special(token)}


def ordinary(tree: Tree) -> list[Mapping[str, Any]]:
    """Added tokens that are text."""
    return [token for token in _added(tree) if not _is_special(token)]


def steps(part: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    """The steps of a pre-tokenizer, normalizer or decoder, those of a Sequence one by one."""
    if part is None:
        return
    if part.get("type") == "Sequence":
        for inner in part.get("pretokenizers") or part.get("normalizers") or part.get("decoders") or []:
            yield from steps(inner)
    else:
        yield part


def end_of(tree: Tree, path: Path, name: str | None) -> int:
    """The token that ends a text: that of the given name, else the eos_token of a tokenizer_config.json beside the
    file, else END, else the only special token. Raises UserError where that decides nothing.
    """
    found = special(tree)
    if name is None:
        folder = path if path.is_dir() else path.parent
        if (folder / "tokenizer_config.json").exists():
            named = _json(folder / "tokenizer_config.json").get("eos_token")
            name = named.get("content") if isinstance(named, dict) else named
    if name is None:
        name = END if END in found else next(iter(found)) if len(found) == 1 else None
    if name in found:
        return found[name]
    listed = ", ".join([*found][:8]) or "none"
    raise UserError(
        f"data.tokens.eos wants a special token that ends a text, got {name!r}; {str(path)!r} has these: {listed}"
    )


def without_special(tree: Tree, unknown: str | None = None) -> Tree:
    """The tree by which texts are encoded: special tokens are not in it, so that no text has one.

    `unknown` names the one that stands for what has no token, if there is one.
    """
    names, model = special(tree), tree["model"]
    vocab = {text: token for text, token in model["vocab"].items() if text not in names or text == unknown}
    model = {**model, "vocab": vocab, "unk_token": unknown}
    return encoding_alone({**tree, "model": model, "added_tokens": ordinary(tree)})


def encoding_alone(tree: Tree) -> Tree:
    """The tree without chance, and without what is done to tokens afterwards."""
    rest = {"post_processor": None, "truncation": None, "padding": None}
    return {**tree, "model": {**tree["model"], "dropout": None}, **rest}


def encoder(tree: Tree) -> Any:
    """The library's tokenizer of a tree. Raises UserError where the library cannot read it."""
    hugging = library()
    try:
        return hugging.Tokenizer.from_str(compact(tree))
    except Exception as error:  # the library has no class of its own for what it cannot read
        raise UserError(f"tokenizers {hugging.__version__} cannot read this tokenizer.json: {error}") from None


def compact(tree: Tree) -> str:
    """A tree as JSON, without blanks."""
    return json.dumps(tree, ensure_ascii=False, separators=(",", ":"))


def token_bytes(tree: Tree) -> list[bytes]:
    """The bytes that each token stands for: none for special tokens and for numbers without a token."""
    made: dict[int, bytes] = {}
    for text, token in tree["model"]["vocab"].items():
        made[token] = bytes(map(ALPHABET.__getitem__, text)) if _is_bytes(text) else b""
    made |= {token["id"]: token["content"].encode() for token in ordinary(tree)}
    made |= dict.fromkeys(special(tree).values(), b"")
    return [made.get(token, b"") for token in range(max(made) + 1)]


def _of_files(vocab: Path, merges: Path) -> Tree:
    """GPT-2's two files as a tree."""
    number = _json(vocab)
    if not isinstance(number, dict):
        raise UserError(f"data.tokens.path wants tokens with their numbers in {str(vocab)!r}, got other JSON")
    with reading(merges, "data.tokens.path"):
        lines = merges.read_text("utf-8").split("\n")
    if END not in number:
        number = {**number, END: max(number.values()) + 1}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": number[END], "content": END, **flags}],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": number,
            "merges": [line for line in lines if line.strip() and not line.startswith("#version")],
        },
    }


def _json(path: Path) -> Any:
    try:
        with reading(path, "data.tokens.path", "a tokenizer.json or its directory"):
            return json.loads(path.read_text("utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"data.tokens.path wants JSON in {str(path)!r}: {error}") from None


def brief(tree: Tree) -> Tree:
    """The tree with merges as strings: a fifth of the lines of pairs in a file."""
    model = tree["model"]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model.get("merges", [])]
    return {**tree, "model": {**model, "merges": merges}}


def _added(tree: Tree) -> list[Mapping[str, Any]]:
    return list(tree.get("added_tokens") or [])


def _is_special(token: Mapping[str, Any]) -> bool:
    return bool(token.get("special")) and len(token["content"]) > 1


def _is_bytes(text: str) -> bool:
    return all(char in ALPHABET for char in text)
