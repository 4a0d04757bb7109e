"""Labels of the speakers of dialogues: those that a text has, against those that data.labels names."""

import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence

from jaxlm.errors import UserError

LABEL = re.compile(r"([^\s:][^:\n]{0,39}):(?= |$)")
"""A turn's label, at most 40 characters without a colon, and the ": " after it."""
SHOWN = 5
"""Labels that a message lists at most, the most frequent."""


def speaker(turn: str, labels: Sequence[str] = ()) -> str | None:
    """The label that a turn begins with: one of `labels`, or anything like one; None where it has none."""
    known = next((label for label in labels if f"{turn} ".startswith(f"{label}: ")), None)
    found = LABEL.match(turn)
    return known or (found[1] if found else None)


def check_labels(dialogues: Sequence[Sequence[str]], labels: tuple[str, str], source: str) -> tuple[str, ...]:
    """Notes on the turns of dialogues that begin with another label than these two, or with none.

    Raises UserError listing the labels that `source` has where one of the two begins no turn: chat would ask or answer
    with a label that the model has never seen.
    """
    count = Counter(speaker(turn, labels) for turns in dialogues for turn in turns)
    unlabelled, speakers = count[None], {label: n for label, n in count.most_common() if label is not None}
    missing = [label for label in labels if label not in speakers]
    if missing:
        raise UserError(_refusal(dialogues, labels, source, speakers, missing))
    names = shlex.join(labels)
    notes = []
    others = {label: n for label, n in speakers.items() if label not in labels}
    if others:
        notes.append(
            f"note: speakers beside those of data.labels ({names}): {_listed(others)}; the model learns their turns, "
            "but a chat neither asks nor answers as them"
        )
    if unlabelled:
        first = next(turn for turns in dialogues for turn in turns if speaker(turn, labels) is None)
        notes.append(
            f"note: {unlabelled:,} of {count.total():,} lines begin with no speaker's label, as {first[:40]!r}: each "
            "line is a turn, so write a turn of several lines on one, or an answer in a chat ends with its first line"
        )
    return tuple(notes)


def _refusal(
    dialogues: Sequence[Sequence[str]],
    labels: tuple[str, str],
    source: str,
    speakers: Mapping[str, int],
    missing: Sequence[str],
) -> str:
    way_out = "or take --data.kind lines or stream"
    if not speakers:
        return (
            f"data.path wants dialogues whose lines begin with their speaker's label, a colon and a blank, as "
            f"{labels[0] + ': '!r}, got none in {source!r}, which begins {dialogues[0][0][:40]!r}: write that before "
            f"each turn, {way_out}"
        )
    begun = Counter(speaker(turns[0], labels) for turns in dialogues)
    pair = sorted(list(speakers)[:2], key=lambda label: -begun[label])  # who begins asks
    fix = f"give --data.labels {shlex.join(pair)}" if len(pair) == 2 else f"dialogues want two speakers, {way_out}"
    return (
        f"data.labels wants the labels of two speakers, got {shlex.join(labels)}, but no line of {source!r} begins "
        f"with {' or '.join(repr(label + ': ') for label in missing)}: it has {_listed(speakers)}; {fix}"
    )


def _listed(speakers: Mapping[str, int]) -> str:
    shown = [f"{label + ': '!r} ({n:,})" for label, n in list(speakers.items())[:SHOWN]]
    more = len(speakers) - len(shown)
    return ", ".join(shown) + (f" and {more:,} more" if more else "")
