"""REAN's tokens: nothing of a text is lost, and every byte is counted."""

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxlm.errors import UserError
from jaxlm.tokenizers import EOS, ReanTokenizer, tokenizer_from_json
from jaxlm.tokenizers.rean_tokens import FIRST_WORD, pieces

TEXT = " Zoë's naïve café, N° 3.14 – 日本\tend\n\nO'Brien said: \"no!\"\n"
texts = st.text(st.characters() | st.sampled_from(" \t\n\u0301aB1,_"))


@given(texts, texts, st.integers(1, 3), st.none() | st.integers(1, 5))
def test_decoding_what_was_encoded_gives_the_text_back_and_counts_its_bytes(known, text, min_count, limit):
    tokenizer = ReanTokenizer.of_texts([known], min_count, limit)
    for one in (known, text, known + text):
        tokens_N = tokenizer.encode(one)
        assert tokens_N.dtype == np.int32
        assert EOS not in tokens_N
        assert tokenizer.decode(tokens_N.tolist()) == one
        assert tokenizer.bytes_of_token[tokens_N].sum() == len(one.encode("utf-8", "surrogatepass"))


@given(texts)
def test_pieces_joined_are_the_text_and_white_space_leads_in_the_first_alone(text):
    cut = pieces(text)
    assert "".join(cut) == text
    assert not any(piece[0].isspace() for piece in cut[1:])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello  world\n", ["Hello  ", "world\n"]),
        (" \tHi", [" \t", "Hi"]),
        ("don't stop", ["don", "'", "t ", "stop"]),
        ("naïve e\u0301te\u0301 x", ["naïve ", "e\u0301te\u0301 ", "x"]),
        ("a_b1 -2", ["a", "_", "b1 ", "-", "2"]),
        ("...\n", [".", ".", ".\n"]),
        ("日本 語", ["日本 ", "語"]),
        ("", []),
    ],
)
def test_a_piece_is_a_word_or_one_other_character_with_the_space_after_it(text, expected):
    assert pieces(text) == expected


@given(st.lists(texts), st.integers(1, 3), st.none() | st.integers(1, 5))
def test_words_are_the_most_frequent_pieces(some, min_count, limit):
    counts = Counter(piece for text in some for piece in pieces(text))
    frequent = sorted((word for word in counts if counts[word] >= min_count), key=lambda word: (-counts[word], word))
    assert list(ReanTokenizer.of_texts(some, min_count, limit).words) == frequent[:limit]


def test_an_unknown_word_is_spelled_in_bytes_and_a_known_one_with_other_space_only_that():
    tokenizer = ReanTokenizer(("the ", "the", "cat "))
    assert tokenizer.encode("the cat ").tolist() == [FIRST_WORD, FIRST_WORD + 2]
    assert tokenizer.encode("thé").tolist() == [1 + byte for byte in "thé".encode()]
    assert tokenizer.encode("the \n").tolist() == [FIRST_WORD, 1 + ord("\n")]
    assert tokenizer.encode("the\n").tolist() == [FIRST_WORD + 1, 1 + ord("\n")]


def test_bytes_that_are_no_text_decode_to_the_replacement_character():
    assert ReanTokenizer(()).decode([1 + 0xC3, 1 + 0x28]) == "\ufffd("


def test_lines_end_with_the_boundary():
    tokenizer = ReanTokenizer.of_texts([TEXT])
    lines = ["O'Brien said", "", "new"]
    expected = [token for line in lines for token in [*tokenizer.encode(line).tolist(), EOS]]
    assert tokenizer.encode_lines(lines).tolist() == expected
    assert tokenizer.decode(expected) == "O'Brien saidnew"


def test_json_keeps_it_and_refuses_another_kind():
    tokenizer = ReanTokenizer.of_texts([TEXT])
    assert tokenizer_from_json(json.loads(json.dumps(tokenizer.to_json()))) == tokenizer
    with pytest.raises(UserError, match="wants kind 'rean', got 'characters'"):
        ReanTokenizer.from_json({"kind": "characters", "characters": "ab"})
    with pytest.raises(UserError, match="wants kind 'characters', 'bytes', 'bpe', 'rean', 'huggingface', got 'words'"):
        tokenizer_from_json({"kind": "words"})


def test_tokens_can_be_read_and_text_can_start():
    tokenizer = ReanTokenizer(("the ", ".\n", "\x07"))
    assert [tokenizer.spell(token) for token in (0, 66, *range(FIRST_WORD, FIRST_WORD + 3))] == [
        "⏎",
        "<0x41>",
        "the␣",
        ".\\n",
        "\\x07",
    ]
    assert tokenizer.start == FIRST_WORD + 1
    assert ReanTokenizer(("the ",)).start == 1 + ord("\n")
