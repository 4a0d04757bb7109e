"""Questions of multiple choice in a file: one JSON object a line."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from jaxlm.data.source import read_text
from jaxlm.errors import UserError

FORM = '{"context" or "question": TEXT, "choices": [TEXT, TEXT, ...], "answer": NUMBER FROM 0}'


@dataclasses.dataclass(frozen=True)
class Question:
    """A text, the texts that may follow it, and the one that should."""

    place: str
    """The file and its line, from 1: "FILE:3"."""
    before: str
    """The text before the choices."""
    choices: tuple[str, ...]
    answer: int
    """The index of the right choice."""
    is_question: bool
    """True if `before` is a question: a choice follows after a blank, or as the answer's turn of a dialogue."""

    def texts(self, labels: tuple[str, str] | None) -> tuple[str, list[str]]:
        """The text before the choices, and this text with each choice after it; `labels` are those of dialogues."""
        before, between = self.before, " " if self.is_question else ""
        if labels and self.is_question:
            before = f"{labels[0]}: {before}\n{labels[1]}:"
        return before, [before + between + choice for choice in self.choices]


def read_questions(path: Path) -> list[Question]:
    """Read the questions of a file, blank lines left out. Raises UserError with the file and line of a mistake."""
    lines = read_text(path, "--choices").split("\n")
    return [_question(f"{path}:{number}", line) for number, line in enumerate(lines, start=1) if line.strip()]


def _question(place: str, line: str) -> Question:
    try:
        tree = json.loads(line)
    except ValueError as error:
        raise UserError(f"{place}: wants a JSON object a line, {FORM}: {error}") from None
    if not isinstance(tree, dict):
        raise UserError(f"{place}: wants a JSON object, {FORM}, got {line[:40]!r}")
    named = [name for name in ("context", "question") if name in tree]
    if len(named) != 1:
        raise UserError(f"{place}: wants either context or question, got {' and '.join(named) or 'neither'}")
    before, choices, answer = tree[named[0]], tree.get("choices"), tree.get("answer")
    if not isinstance(before, str):
        raise UserError(f"{place}: {named[0]} wants a text, got {_shown(before)}")
    if not isinstance(choices, list) or len(choices) < 2:
        raise UserError(f"{place}: choices wants a list of at least two texts, got {_shown(choices)}")
    for number, choice in enumerate(choices):
        if not isinstance(choice, str) or not choice:
            raise UserError(f"{place}: choices[{number}] wants a text that is not empty, got {_shown(choice)}")
    if not isinstance(answer, int) or isinstance(answer, bool) or not 0 <= answer < len(choices):
        raise UserError(f"{place}: answer wants a number from 0 to {len(choices) - 1}, got {_shown(answer)}")
    return Question(place, before, tuple(choices), answer, named[0] == "question")


def _shown(value: Any) -> str:
    return "nothing" if value is None else json.dumps(value, ensure_ascii=False)[:60]
