"""Text to token ids and back."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxlm.errors import UserError
from jaxlm.tokenizers import EOS, CharTokenizer

MIXED = "Zoë's naïve café, N° 3.14 – 日本\tend\nO'Brien"


@given(st.text())
def test_decoding_what_was_encoded_gives_the_text_back(text):
    tokenizer = CharTokenizer.of_text(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_lone_surrogate_survives_the_way_there_and_back():
    text = "a\ud800b"
    tokenizer = CharTokenizer.from_json(json.loads(json.dumps(CharTokenizer.of_text(text).to_json())))
    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(st.text())
def test_ids_are_places_in_the_sorted_alphabet_after_the_boundary(text):
    tokenizer = CharTokenizer.of_text(text)
    alphabet = sorted(set(text))
    number = {char: i + 1 for i, char in enumerate(alphabet)}
    assert tokenizer.characters == "".join(alphabet)
    assert tokenizer.vocab_size == len(alphabet) + 1
    tokens_N = tokenizer.encode(text)
    assert tokens_N.dtype == np.int32
    assert tokens_N.tolist() == [number[char] for char in text]


@given(st.lists(st.text(st.characters(exclude_characters="\n"))))
def test_every_line_is_followed_by_the_boundary(lines):
    tokenizer = CharTokenizer.of_text("".join(lines))
    expected = [token for line in lines for token in [*tokenizer.encode(line).tolist(), EOS]]
    tokens_N = tokenizer.encode_lines(lines)
    assert tokens_N.dtype == np.int32
    assert tokens_N.tolist() == expected


def test_the_boundary_decodes_to_nothing():
    tokenizer = CharTokenizer("ab")
    assert tokenizer.decode([EOS, 1, EOS, 2, EOS]) == "ab"


def test_a_dot_is_a_character_and_not_the_boundary():
    tokenizer = CharTokenizer.of_text("a.b")
    assert EOS not in tokenizer.encode("a.b")
    assert tokenizer.decode(tokenizer.encode("a.b")) == "a.b"


@pytest.mark.parametrize(
    ("known", "text", "char", "point"),
    [
        ("abc", "abé!", "'é'", "U+00E9"),
        ("abc", "ABC", "'A'", "U+0041"),
        ("bcd", "ba", "'a'", "U+0061"),
        ("ac", "ab", "'b'", "U+0062"),
        ("", "x", "'x'", "U+0078"),
        ("abc", "a\nb", r"'\\n'", "U+000A"),
        ("abc", "a日", "'日'", "U+65E5"),
        ("abc", "a😀", "'😀'", "U+1F600"),
    ],
)
def test_the_first_unknown_character_is_named(known, text, char, point):
    with pytest.raises(UserError, match=rf"the character {char} \({point.replace('+', '[+]')}\) is not in"):
        CharTokenizer.of_text(known).encode(text)


def test_the_message_about_an_unknown_character_lists_what_is_known_in_one_line():
    with pytest.raises(UserError, match=r"it knows: ⏎ab$") as caught:
        CharTokenizer.of_text("a\nb").encode("c")
    assert "\n" not in str(caught.value)
    many = "".join(map(chr, range(0x100, 0x200)))
    with pytest.raises(UserError, match=f"it knows: {many[:40]}…$"):
        CharTokenizer.of_text(many).encode("c")


def test_an_unknown_character_in_a_line_is_named_too():
    with pytest.raises(UserError, match="'z'"):
        CharTokenizer("ab").encode_lines(["ab", "bz"])


@given(st.text())
def test_json_keeps_the_tokenizer(text):
    tokenizer = CharTokenizer.of_text(text)
    assert CharTokenizer.from_json(json.loads(json.dumps(tokenizer.to_json()))) == tokenizer


def test_json_of_another_kind_is_refused():
    with pytest.raises(UserError, match=r"tokenizer\.json wants kind 'characters', got 'words'"):
        CharTokenizer.from_json({"kind": "words", "characters": "ab"})


@given(st.text())
def test_token_bytes_add_up_to_the_texts_utf8(text):
    tokenizer = CharTokenizer.of_text(text)
    assert tokenizer.bytes_of_token.shape == (tokenizer.vocab_size,)
    assert tokenizer.bytes_of_token[tokenizer.encode(text)].sum() == len(text.encode())


def test_the_boundary_counts_one_byte():
    assert CharTokenizer("aé日😀").bytes_of_token.tolist() == [1, 1, 2, 3, 4]


@given(st.characters())
def test_any_token_is_spelled_in_visible_characters(char):
    spelled = CharTokenizer(char).spell(1)
    assert spelled
    assert spelled.isprintable()
    assert not any(c.isspace() for c in spelled)


def test_tokens_are_spelled_as_people_read_them():
    tokenizer = CharTokenizer.of_text("a é\n\t'日")
    spelled = {tokenizer.spell(token) for token in range(tokenizer.vocab_size)}
    assert spelled == {".", "a", "␣", "é", "\\n", "\\t", "'", "日"}


def test_mixed_text_has_one_token_a_character():
    tokenizer = CharTokenizer.of_text(MIXED)
    assert len(tokenizer.encode(MIXED)) == len(MIXED)
    assert tokenizer.encode("").shape == (0,)


def test_a_word_list_with_accents_and_apostrophes_comes_back(shared_data):
    text = (shared_data / "names" / "american-english.txt").read_text("utf-8")
    tokenizer = CharTokenizer.of_text(text)
    assert {"'", "é", "A"} <= set(tokenizer.characters)
    assert tokenizer.decode(tokenizer.encode(text)) == text
