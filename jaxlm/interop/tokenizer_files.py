"""The tokenizer of a Hugging Face folder: which files say what."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxlm.errors import UserError
from jaxlm.interop.folder import read_json, token_ids
from jaxlm.tokenizers import ImportedTokenizer, huggingface, token_spelling
from jaxlm.tokenizers.huggingface import END, Tree

FLAGS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
"""Of an added token: it is found wherever its name stands."""


def read_tokenizer(folder: Path, config: Mapping[str, Any], generation: Mapping[str, Any]) -> ImportedTokenizer:
    """The tokenizer of a folder, from tokenizer.json, tokenizer_config.json and chat_template.jinja.

    `config` and `generation` are config.json and generation_config.json, which may name more tokens that end a text.
    Raises UserError, naming the part that this package does not have.
    """
    path = folder / "tokenizer.json"
    if not path.exists():
        raise UserError(
            f"import wants tokenizer.json in {str(folder)!r}, which has none: save it there with "
            f"transformers' AutoTokenizer.from_pretrained(...).save_pretrained(...)"
        )
    tree, settings = read_json(path), _settings(folder)
    if not isinstance(tree.get("model"), dict):
        raise UserError(f"import wants Hugging Face's tokenizer.json, got {str(path)!r} without a model")
    try:
        reason = token_spelling.refusal(tree)
        if reason:
            raise UserError(f"import wants byte-pair encoding in {str(path)!r}, got {reason}")
        return _read(tree, settings, folder, {**config, **generation})
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"import wants Hugging Face's tokenizer.json, got {str(path)!r} with other parts "
            f"({type(error).__name__}: {error})"
        ) from None


def _read(tree: Tree, settings: Mapping[str, Any], folder: Path, ids: Mapping[str, Any]) -> ImportedTokenizer:
    names = _numbers(tree)
    ends = token_ids(ids, "eos_token_id")
    eos = _named(settings, "eos_token", names)
    if eos is None:
        eos = ends[0] if ends else names.get(END)
    if eos is None:
        raise UserError(
            f"import wants eos_token, which ends a text, in {str(folder / 'tokenizer_config.json')!r}, got none"
        )
    begin = _named(settings, "bos_token", names)
    if begin is None:
        begin = next(iter(token_ids(ids, "bos_token_id")), eos)
    known = {number: name for name, number in names.items()}
    if lost := [number for number in (eos, begin, *ends) if number not in known]:
        raise UserError(f"import wants special tokens out of tokenizer.json in {str(folder)!r}, got number {lost[0]}")
    tree = huggingface.brief(_with_special(tree, {known[number]: number for number in (eos, begin, *ends)}))
    return ImportedTokenizer(
        model=huggingface.compact(tree),
        eos=eos,
        begin=begin,
        before=_before(tree, settings, begin),
        ends=tuple(dict.fromkeys((eos, *ends))),
        template=_template(folder, settings),
    )


def _settings(folder: Path) -> Mapping[str, Any]:
    """tokenizer_config.json, with special_tokens_map.json's names where it has none."""
    found: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / name).exists():
            found |= {key: value for key, value in read_json(folder / name).items() if value is not None}
    return found


def _numbers(tree: Tree) -> dict[str, int]:
    """Every token's number by its name."""
    added = {token["content"]: token["id"] for token in tree.get("added_tokens") or []}
    return {**tree["model"]["vocab"], **added}


def _named(settings: Mapping[str, Any], key: str, names: Mapping[str, int]) -> int | None:
    """The number of the token that a setting names, as "</s>" or {"content": "</s>", ...}."""
    value = settings.get(key)
    name = value.get("content") if isinstance(value, dict) else value
    if name is None:
        return None
    if name not in names:
        raise UserError(f"import wants {key} out of tokenizer.json's tokens, got {name!r}")
    return names[name]


def _with_special(tree: Tree, wanted: Mapping[str, int]) -> Tree:
    """The tree in which these tokens are special, so that no text has them."""
    added = list(tree.get("added_tokens") or [])
    there = {token["content"] for token in added}
    added = [{**token, "special": True} if token["content"] in wanted else token for token in added]
    added += [
        {"id": id_, "content": name, **FLAGS, "special": True} for name, id_ in wanted.items() if name not in there
    ]
    return {**tree, "added_tokens": added}


def _before(tree: Tree, settings: Mapping[str, Any], begin: int) -> tuple[int, ...]:
    """Tokens that are put before each text: by add_bos_token, or by tokenizer.json where that is not said."""
    said = settings.get("add_bos_token")
    if isinstance(said, bool):
        return (begin,) if said else ()
    both = huggingface.encoder({**tree, "truncation": None, "padding": None})
    alone, whole = (both.encode("a", add_special_tokens=special).ids for special in (False, True))
    place = next((i for i in range(len(whole)) if whole[i : i + len(alone)] == alone), 0)
    return tuple(whole[:place])


def _template(folder: Path, settings: Mapping[str, Any]) -> str | None:
    """The chat template: chat_template.jinja, or tokenizer_config.json's, of several the one named default."""
    path = folder / "chat_template.jinja"
    if path.exists():
        return path.read_text("utf-8")
    found = settings.get("chat_template")
    if isinstance(found, list):
        found = next((one["template"] for one in found if one["name"] == "default"), None)
    return found if isinstance(found, str) else None
