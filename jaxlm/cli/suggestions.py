"""The setting or value that was probably meant by one that does not exist."""

import difflib
from collections.abc import Callable, Sequence
from functools import partial

ALIASES = {
    "learning-rate": "lr",
    "wd": "weight-decay",
    "bs": "batch-size",
    "iters": "steps",
    "iterations": "steps",
    "block-size": "context",
    "seq-len": "context",
    "width": "d-model",
    "data": "path",
    "dataset": "path",
    "file": "path",
    "input": "path",
    "gpu": "device",
    "cpu": "device",
    "cuda": "device",
    "output": "run-dir",
    "out": "run-dir",
    "samples": "n",
    "length": "max-tokens",
}
"""Names that other programs have for settings, and the last part of ours."""
ALIKE = 0.75
"""The least ratio of difflib at which a name is taken for a misspelling of another."""
WHOLE_WORD = 4
"""Letters from which on a part of a name is taken for a word."""


def near_setting(given: str, settings: Sequence[str]) -> str | None:
    """Return the setting (as "--optim.lr") that was probably meant by `given` ("--lr"), or None if none is near.

    First come settings whose last part is the given name, or ours for another program's; then those whose last part
    begins with it, and those that share a word with it ("--hidden", "--model.d-hidden"); then misspellings. Of several
    it is one of the same group, or of one that is spelled alike, then the one with the shortest name.
    """
    plain = {setting: _plain(setting) for setting in settings}
    group, _, last = _plain(given).rpartition(".")
    if len(last) < 2:
        return None
    words = [word for word in last.split("-") if len(word) >= WHOLE_WORD]
    rules: list[Callable[[str], bool]] = [
        lambda name: name == last,
        lambda name: name == ALIASES.get(last),
        lambda name: name.startswith(last),
        *(partial(_has_word, word) for word in words),
    ]
    for rule in rules:
        found = {setting: name.rpartition(".")[0] for setting, name in plain.items() if rule(name.rpartition(".")[2])}
        if found:
            groups = difflib.get_close_matches(group, found.values(), n=1) if group else [""]
            same = [setting for setting in found if found[setting] in groups]
            return min(same or found, key=lambda setting: (setting.count("."), len(setting), setting))
    near = difflib.get_close_matches(given.partition("=")[0], settings, n=1, cutoff=ALIKE)
    if near:
        return near[0]
    parts = {name.rpartition(".")[2]: setting for setting, name in plain.items()}
    near = difflib.get_close_matches(last, list(parts), n=1, cutoff=ALIKE)
    return parts[near[0]] if near else None


def near_value(given: str, values: Sequence[str]) -> str | None:
    """Return the one of some values that was probably meant, or None if none is near."""
    folded = {value.casefold().replace("_", "-"): value for value in values}
    word = given.casefold().replace("_", "-")
    begun = [value for name, value in folded.items() if len(word) > 1 and name.startswith(word)]
    near = difflib.get_close_matches(word, list(folded), n=1)
    return begun[0] if begun else folded[near[0]] if near else None


def _has_word(word: str, name: str) -> bool:
    """True if a word of a name, not a mere letter or two, begins with a given one, or the given one with it."""
    long = [other for other in name.split("-") if len(other) >= WHOLE_WORD]
    return any(other.startswith(word) or word.startswith(other) for other in long)


def _plain(setting: str) -> str:
    return setting.partition("=")[0].lstrip("-").replace("_", "-").casefold()
