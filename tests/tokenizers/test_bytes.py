"""A token for each byte."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxlm.errors import UserError
from jaxlm.tokenizers import EOS, ByteTokenizer, UnknownCharacter, tokenizer_from_json

BYTES = ByteTokenizer()


@given(st.text(), st.text())
def test_tokens_are_the_bytes_of_utf8_and_give_the_text_back(text, more):
    token_N = BYTES.encode(text)
    assert token_N.dtype == "int32"
    assert token_N.tolist() == [1 + byte for byte in text.encode()]
    assert BYTES.decode(token_N) == text
    assert BYTES.decode([*token_N, EOS, *BYTES.encode(more)]) == text + more
    assert BYTES.bytes_of_token[token_N].sum() == len(text.encode())


@given(st.lists(st.text()))
def test_every_line_is_followed_by_eos_and_has_none(lines):
    expected = [token for line in lines for token in [*BYTES.encode(line).tolist(), EOS]]
    assert BYTES.encode_lines(lines).tolist() == expected
    assert expected.count(EOS) == len(lines)


def test_half_of_a_surrogate_pair_is_refused():
    for encode in (BYTES.encode, lambda text: BYTES.encode_lines(["a", text])):
        with pytest.raises(UnknownCharacter, match=r"character '\\ud83d' \(U\+D83D\) is half of a surrogate pair"):
            encode("a\ud83db")


def test_bytes_that_are_no_text_are_shown_as_such():
    assert BYTES.decode([1 + 0xE2, 1 + 0x82]) == "\ufffd"
    assert BYTES.decode([1 + 0xE2, 1 + 0x82, 1 + 0xAC]) == "€"


def test_tokens_can_be_read_and_json_keeps_the_kind():
    assert [BYTES.spell(token) for token in (0, 33, 11, 66, 1 + 0xE2)] == ["⏎", "␣", "<0x0A>", "A", "<0xE2>"]
    assert tokenizer_from_json(BYTES.to_json()) == BYTES
    assert (BYTES.vocab_size, BYTES.eos, BYTES.decode([BYTES.start])) == (257, EOS, "\n")
    with pytest.raises(UserError, match="wants kind 'bytes', got 'bpe'"):
        ByteTokenizer.from_json({"kind": "bpe"})
