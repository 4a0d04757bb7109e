"""A look at a text: its kind, its speakers, its alphabet."""

import pytest

from jaxlm.any_text.look import look
from tests.conftest import NAMES

PROSE = (
    "It was a bright cold day in April, and the clocks were\nstriking thirteen. Winston Smith slipped quickly\n" * 20
)
CODE = "def f(x):\n    return x\n\n\nclass A:\n    y = 1\n" * 20
PLAY = "First Citizen:\nBefore we proceed any further, hear me speak.\n\nAll:\nSpeak, speak.\n\n" * 20
CHAT = "user: hi\nbot: hello, how can I help?\nuser: bye\n\nuser: are you there?\nbot: yes\n\n" * 20
LOG = "2026-11-30 12:00:01 INFO server started on port 8080\n2026-11-30 12:00:02 WARN disk at 90 %\n" * 20
ARTICLES = "The quick brown fox jumps over the lazy dog and goes on for a while. " * 20 + "\n"


@pytest.mark.parametrize(
    "text, kind",
    [
        ("\n".join(NAMES), "lines"),
        ("New York\nRio de Janeiro\nÅlesund\n", "lines"),
        (PROSE, "stream"),
        (CODE, "stream"),
        (PLAY, "stream"),
        (LOG, "stream"),
        (ARTICLES * 5, "stream"),
        ("one line alone", "stream"),
        (CHAT, "dialogues"),
        (CHAT.replace("\n\n", "\n"), "stream"),  # nothing parts one dialogue from the next
    ],
)
def test_the_kind_of_a_text(text, kind):
    assert look(text).kind == kind


def test_the_speakers_of_dialogues_are_found_in_the_order_in_which_they_begin():
    assert look(CHAT).labels == ("user", "bot")
    assert look(CHAT.replace("user: hi\n", "")).labels == ("bot", "user")
    assert look(PROSE).labels is None


def test_many_keys_are_no_speakers():
    assert look("".join(f"key{i}: value\n\n" for i in range(40))).kind == "stream"


def test_sizes_and_the_tail_of_the_alphabet():
    seen = look("aé\n" * 12 + "z")
    assert (seen.characters, seen.bytes, seen.alphabet, seen.rare, seen.lines, seen.longest) == (37, 49, 4, 1, 13, 2)
