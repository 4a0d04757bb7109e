"""Letters keep their combining marks in every pattern of words; texts without marks are cut as by Python's re."""

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxlm.config import WordsConfig
from jaxlm.tokenizers.rean_tokens import PATTERN
from jaxlm.tokenizers.unicode_words import JOINERS, finder, has_marks, with_marks

WORD, EACH, KEPT = WordsConfig.pattern, r"\w", rf"{WordsConfig.pattern}|[^\w\s]"


def is_mark(char):
    return unicodedata.category(char)[0] == "M" or char in JOINERS


@pytest.mark.parametrize(
    ("pattern", "text", "words"),
    [
        (WORD, "हिन्दी किताब", ["हिन्दी", "किताब"]),
        (WORD, "cafe\u0301 fore\u0302t", ["cafe\u0301", "fore\u0302t"]),
        (WORD, "தமிழ் മലയാളം", ["தமிழ்", "മലയാളം"]),
        (WORD, "كَتَبَ שָׁלוֹם", ["كَتَبَ", "שָׁלוֹם"]),
        (WORD, "می\u200cخواهم کتاب\u200c", ["می\u200cخواهم", "کتاب"]),
        (WORD, "क्\u200dष x", ["क्\u200dष", "x"]),
        (WORD, "i\u0307stanbul_2", ["i\u0307stanbul", "2"]),
        (WORD, "❤\ufe0f a\u0301 👩\u200d💻 b", ["a\u0301", "b"]),
        (WORD, "\u0301 \u200d x", ["x"]),
        (EACH, "किताब", ["कि", "ता", "ब"]),
        (".", "कि❤\ufe0f", ["कि", "❤\ufe0f"]),
        (KEPT, "हिन्दी। ❤\ufe0f", ["हिन्दी", "।", "❤\ufe0f"]),
        (r"[\w'-]+", "l'e\u0301te\u0301 x-y", ["l'e\u0301te\u0301", "x-y"]),
        (r"[^\W\d_]+", "e\u03012", ["e\u0301"]),
        (r"\S+", "e\u0301, x", ["e\u0301,", "x"]),
        ("[\u0900-\u097f]+", "हिन्दी x", ["हिन्दी"]),
        ("[a-z]+", "xe\u0301", ["xe"]),
        (r"(?<!\w)@\w+", "@a e\u0301@b", ["@a", "@b"]),
    ],
)
def test_a_letter_keeps_its_marks(pattern, text, words):
    assert finder(pattern)(text) == words


@pytest.mark.parametrize("pattern", [WORD, EACH, KEPT, PATTERN, r"[\w'-]+", r"\S+", r".|\n"])
@given(st.text(st.characters() | st.sampled_from(" \n'_-aé日²½1!")))
def test_text_without_marks_is_cut_as_before(pattern, text):
    text = "".join(char for char in text if not is_mark(char))
    assert not has_marks(text)
    assert finder(pattern)(text) == re.findall(pattern, text) == re.findall(with_marks(pattern), text)


@given(
    st.text(
        st.sampled_from("aé_ \n❤1!") | st.characters(categories=["Mn", "Mc", "Me", "Lo"]) | st.sampled_from(JOINERS)
    )
)
def test_no_word_begins_with_a_mark_and_none_loses_one(text):
    words = finder(WORD)(text)
    assert all(word[0].isalnum() and word[-1] not in JOINERS for word in words)
    found, rest = [], text
    for word in words:
        before, _, rest = rest.partition(word)
        found += before
        assert not rest or unicodedata.category(rest[0])[0] != "M"
    assert not any(char.isalnum() for char in [*found, *rest])


def test_every_mark_is_found_and_no_letter():
    every = [chr(point) for point in range(0x110000) if not 0xD800 <= point < 0xE000]
    assert all(has_marks(char) for char in every if is_mark(char))
    assert not has_marks("".join(char for char in every if not is_mark(char)))
