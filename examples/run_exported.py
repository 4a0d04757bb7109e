"""Continue a text with an exported program, without jaxlm: with JAX, NumPy and flatbuffers, which jax.export reads by.

    python -m jaxlm.interop export runs/names_gpt --program names.zip
    python examples/run_exported.py names.zip -n 5 --prompt em --temperature 0.8 --seed 1

The texts are those of sample.py for the same settings. This file imports nothing of the project and can be taken along
with the program; it runs on a CPU, an NVIDIA GPU or a TPU, as JAX finds them. docs/formats.md describes the file.
"""

import argparse
import itertools
import json
import re
import sys
import unicodedata
import zipfile
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import jax
import jax.export
import numpy as np

WHITE_SPACE = r"\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
"""Unicode's white space. Python's \\s has four control characters more."""
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""The pattern by which GPT-2 cuts a text into words."""


class Bytes:
    """Token 0 ends a text, token 1 + b is the byte b of UTF-8."""

    def encode(self, text: str) -> list[int]:
        """Tokens of a text."""
        return [1 + byte for byte in text.encode()]

    def bytes_of(self, token: int) -> bytes:
        """The bytes that a token stands for; joined, they are the text."""
        return bytes([token - 1]) if token else b""


class Characters:
    """Token 0 ends a text, token i is the i-th character, from 1."""

    def __init__(self, characters: str):
        self._characters = characters

    def encode(self, text: str) -> list[int]:
        """Tokens of a text."""
        unknown = sorted(set(text) - set(self._characters))
        if unknown:
            raise SystemExit(f"the model does not know the character {unknown[0]!r}")
        return [1 + self._characters.index(character) for character in text]

    def bytes_of(self, token: int) -> bytes:
        """The bytes that a token stands for."""
        return self._characters[token - 1].encode("utf-8", "surrogatepass") if token else b""


class Words:
    """Token 0 ends a text, token 1 + b is the byte b, then come words, each with the white space after it (REAN)."""

    def __init__(self, words: list[str], pattern: str):
        self._words, self._pattern = words, re.compile(pattern)
        self._number = {word: 257 + i for i, word in enumerate(words)}

    def encode(self, text: str) -> list[int]:
        """Tokens of a text: words, and in bytes what is none, or the white space with which a word is not known."""
        return [token for piece in self._pattern.findall(text) for token in self._of_piece(piece)]

    def _of_piece(self, piece: str) -> list[int]:
        for end in range(len(piece), max(len(piece.rstrip()), 1) - 1, -1):
            if piece[:end] in self._number:
                return [self._number[piece[:end]], *(1 + byte for byte in piece[end:].encode())]
        return [1 + byte for byte in piece.encode()]

    def bytes_of(self, token: int) -> bytes:
        """The bytes that a token stands for."""
        return Bytes().bytes_of(token) if token < 257 else self._words[token - 257].encode("utf-8", "surrogatepass")


class ByteLevelBpe:
    """Runs of bytes, merged in the order of a list of pairs: Hugging Face's tokenizer.json (Sennrich et al. 2016)."""

    def __init__(self, tree: dict[str, Any]):
        model, added = tree["model"], tree.get("added_tokens") or []
        self._special = {token["content"] for token in added if token.get("special") and len(token["content"]) > 1}
        self._ordinary = [token["content"] for token in added if token["content"] not in self._special]
        self._vocab = {text: token for text, token in model["vocab"].items() if text not in self._special}
        pairs = (tuple(merge.split(" ") if isinstance(merge, str) else merge) for merge in model["merges"])
        self._rank = {pair: rank for rank, pair in enumerate(pairs)}
        self._whole = model.get("ignore_merges", False)
        self._cutters = list(cutters(tree.get("pre_tokenizer")))
        self._form = (tree.get("normalizer") or {}).get("type")
        self._letter, byte_of = byte_letters(), {letter: byte for byte, letter in enumerate(byte_letters())}
        if not {*self._letter} <= {*self._vocab} or self._form not in (None, "NFC", "NFD", "NFKC", "NFKD"):
            raise SystemExit("this reader knows byte-level BPE alone, of texts in a normal form at most")
        self._bytes = {token: bytes(byte_of.get(char, 0) for char in text) for text, token in self._vocab.items()}
        self._bytes |= {token["id"]: token["content"].encode() for token in added if token["content"] in self._ordinary}

    def encode(self, text: str) -> list[int]:
        """Tokens of a text; what spells a special token is text."""
        if any(token in text for token in self._ordinary):
            raise SystemExit("this reader does not encode added tokens: take `tokenizers` for this prompt")
        pieces = [unicodedata.normalize(self._form, text) if self._form else text]
        for cut in self._cutters:
            pieces = [part for piece in pieces for part in cut(piece)]
        return [self._vocab[part] for piece in pieces for part in self._merged(piece)]

    def _merged(self, piece: str) -> list[str]:
        parts = [self._letter[byte] for byte in piece.encode()]
        if self._whole and "".join(parts) in self._vocab:
            return ["".join(parts)]
        while len(parts) > 1:
            ranks = [self._rank.get(pair, len(self._rank)) for pair in itertools.pairwise(parts)]
            first = int(np.argmin(ranks))
            if ranks[first] == len(self._rank):
                break
            parts[first : first + 2] = ["".join(parts[first : first + 2])]
        return parts

    def bytes_of(self, token: int) -> bytes:
        """The bytes that a token stands for; none for special tokens."""
        return self._bytes.get(token, b"")


def byte_letters() -> list[str]:
    """The character that stands for each byte in a vocabulary: of visible Latin-1 itself, of others U+0100 and on."""
    visible = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = iter(range(256, 512))
    return [chr(byte) if byte in visible else chr(next(others)) for byte in range(256)]


def cutters(part: dict[str, Any] | None) -> Iterator[Callable[[str], list[str]]]:
    """What cuts a text into the pieces within which bytes are merged, one after the other."""
    kind = part and part["type"]
    if part is None:
        return
    if kind == "Sequence":
        for inner in part["pretokenizers"]:
            yield from cutters(inner)
    elif kind == "ByteLevel":
        if part.get("use_regex", True):
            yield isolating(GPT2)
    elif kind == "Split" and part["behavior"] == "Isolated" and not part.get("invert"):
        pattern = part["pattern"]
        yield isolating(pattern["Regex"] if "Regex" in pattern else re.escape(pattern["String"]))
    elif kind == "Digits":
        yield isolating(r"\p{N}" if part.get("individual_digits") else r"\p{N}+")
    else:
        raise SystemExit(f"this reader does not know how {kind} cuts a text: take `tokenizers` for this prompt")


def isolating(pattern: str) -> Callable[[str], list[str]]:
    """Cut a text into the matches of a pattern and what lies between them."""
    expression = re.compile(f"({as_python(pattern)})")

    def cut(text: str) -> list[str]:
        pieces, end = [], 0
        for found in expression.finditer(text):
            pieces += [text[end : found.start()], found[0]]
            end = found.end()
        return [piece for piece in [*pieces, text[end:]] if piece]

    return cut


def as_python(pattern: str) -> str:
    r"""A pattern of Rust or Oniguruma for Python's re, which has no \p{L} and another \s."""
    made, in_set, other = "", False, {r"\s": f"[{WHITE_SPACE}]", r"\S": f"[^{WHITE_SPACE}]"}
    for part in re.findall(r"\\p\{\w+\}|\\.|.", pattern, re.DOTALL):
        if part.startswith(r"\p"):
            part = f"[{of_category(part[3:-1])}]"
        elif in_set and part == r"\S":
            raise SystemExit(r"this reader does not know \S in a set: take `tokenizers` for this prompt")
        part = other.get(part, part)
        if len(part) > 2 and in_set:
            part = part[1:-1]
        elif len(part) == 1:
            in_set = part == "[" or (in_set and part != "]")
        made += part
    return made


@cache
def of_category(name: str) -> str:
    """The characters whose Unicode category begins so, as ranges of a set."""
    ranges: list[list[int]] = []
    for point in range(sys.maxunicode + 1):
        if unicodedata.category(chr(point)).startswith(name):
            if ranges and ranges[-1][1] == point - 1:
                ranges[-1][1] = point
            else:
                ranges.append([point, point])
    return "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in ranges)


class Program:
    """An exported program: `texts` continues a prompt."""

    def __init__(self, path: str):
        with zipfile.ZipFile(path) as file:
            self.header = json.loads(file.read("header.json"))
            if (self.header.get("format"), self.header.get("version")) != ("jaxlm-program", 1):
                raise SystemExit(f"{path} is no exported program of version 1")
            self._prefill, self._decode = (
                jax.jit(jax.export.deserialize(bytearray(file.read(f"{name}.bin"))).call, donate_argnums=1)
                for name in ("prefill", "decode")
            )
            self._weights = {name: read_weight(file, name, said) for name, said in self.header["weights"].items()}
            tree = json.loads(file.read("tokenizer.json"))
        self._text = self.header["text"]
        kinds: dict[str, Callable[[], Any]] = {
            "bytes": Bytes,
            "characters": lambda: Characters(tree["characters"]),
            "rean": lambda: Words(tree["words"], self._text["words"]),
            "bpe": lambda: ByteLevelBpe(tree["huggingface"]),
            "huggingface": lambda: ByteLevelBpe(tree["huggingface"]),
        }
        if tree["kind"] not in kinds:
            raise SystemExit(f"this reader does not know tokenizers of kind {tree['kind']!r}")
        self._tokenizer = kinds[tree["kind"]]()

    def texts(self, prompt: str, n: int, seed: int, max_tokens: int | None, **settings: float) -> Iterator[str]:
        """Each of n texts of a prompt, the prompt included, as sample.py writes them for a seed and settings."""
        key_2 = jax.random.key_data(jax.random.key(seed, impl="threefry2x32"))
        arrays = {name: np.array([value], self.header["settings"][name]) for name, value in settings.items()}
        row = self._prompt_tokens(prompt)
        for place in range(n):
            made = list(self._tokens(row, place, key_2, arrays, max_tokens or self._text["max_tokens"]))
            text, stop = self._decoded(made), self._text["stop_text"]
            yield prompt + (text[: text.find(stop)] if stop and stop in text else text)

    def _tokens(self, row: list[int], place: int, key_2: Any, settings: dict[str, Any], most: int) -> Iterator[int]:
        """New tokens after a row, until its text ends. A full context goes on from its last half, if texts do."""
        positions, seen_1V = self.header["positions"], np.zeros((1, self.header["vocab_size"]), bool)
        seen_1V[0, row] = True
        seen_1V[0, self._text["eos"]] = False
        made: list[int] = []
        window = row if positions is None else row[-positions:]
        while True:
            memory = self._read(window[:-1])
            token_1 = np.array(window[-1:], np.int32)
            room = most if positions is None else positions + 1 - len(window)
            for _ in range(room):
                count_1, place_1 = (np.array([number], np.int32) for number in (len(made), place))
                token_1, memory, seen_1V = self._decode(
                    self._weights, memory, seen_1V, token_1, count_1, place_1, key_2, settings
                )
                made.append(int(token_1[0]))
                yield made[-1]
                if self._has_ended(made) or len(made) == most:
                    return
            if not self._text["goes_on"]:
                return
            window = [*row, *made][-max(1, positions // 2) :]

    def _read(self, tokens: list[int]) -> Any:
        """The memory of some tokens, of which the program reads so many at once as it was made for."""
        P = self.header["prompt"]
        memory: Any = [np.zeros(leaf["shape"], leaf["dtype"]) for leaf in self.header["cache"]]
        for start in range(0, max(len(tokens), 1), P):
            part = tokens[start : start + P]
            prompt_1P = np.zeros((1, P), np.int32)
            prompt_1P[0, : len(part)] = part
            memory = self._prefill(
                self._weights, memory, np.array(start == 0), prompt_1P, np.array([len(part)], np.int32)
            )
        return memory

    def _has_ended(self, made: list[int]) -> bool:
        stop = self._text["stop_tokens"]
        return made[-1] in self._text["end_tokens"] or (bool(stop) and made[-len(stop) :] == stop)

    def _prompt_tokens(self, prompt: str) -> list[int]:
        """What a prompt is continued from: where turns end with a token, so do the prompt's lines."""
        eos, parts = self._text["eos"], prompt.split("\n") if self._text["eos_text"] else [prompt]
        tokens = [token for part in parts for token in [*self._tokenizer.encode(part), eos]][:-1]
        return [*self._text["prefix"], *tokens] or self._text["start"]

    def _decoded(self, tokens: list[int]) -> str:
        eos, between = self._text["eos"], self._text["eos_text"].encode()
        raw = b"".join(between if token == eos else self._tokenizer.bytes_of(token) for token in tokens)
        return raw.decode("utf-8", "replace")


def read_weight(file: zipfile.ZipFile, name: str, said: dict[str, Any]) -> jax.Array:
    """A weight on JAX's default device; types that NumPy lacks are stored as whole numbers of their width."""
    with file.open(f"weights/{name}.npy") as stream:
        array = np.lib.format.read_array(stream, allow_pickle=False)
    return jax.device_put(array.view(jax.numpy.dtype(said["dtype"])))


def main() -> None:
    """Print texts, one under the other."""
    parser = argparse.ArgumentParser(description="Continue a text with an exported program.")
    parser.add_argument("program", help="file of python -m jaxlm.interop export RUN --program FILE")
    parser.add_argument("-n", type=int, default=1, help="texts")
    parser.add_argument("--prompt", default="", help="what each begins with")
    parser.add_argument("--max-tokens", type=int, help="tokens after the prompt at most")
    parser.add_argument("--temperature", type=float, default=1.0, help="divides the logits; 0: the most likely token")
    parser.add_argument("--top-k", type=int, default=2**31 - 1, help="only the k most likely tokens")
    parser.add_argument("--top-p", type=float, default=1.0, help="only the fewest that reach p together")
    parser.add_argument("--min-p", type=float, default=0.0, help="only those p times as likely as the most likely")
    parser.add_argument("--repetition-penalty", type=float, default=1.0, help="of tokens that the text already has")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same texts")
    options = vars(parser.parse_args())
    for text in Program(options.pop("program")).texts(**options):
        print(text, flush=True)


if __name__ == "__main__":
    main()
