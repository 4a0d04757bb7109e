"""Byte-level BPE: trained, opened from files, lossless, and the same ids as other programs have."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxlm
from jaxlm.config.tokens import CHOICES
from jaxlm.errors import UserError
from jaxlm.tokenizers import BpeTokenizer, UnknownCharacter, long_texts, tokenizer_from_json
from jaxlm.tokenizers.huggingface import ALPHABET
from tests.tokenizers.texts import HARD

pytest.importorskip("tokenizers")

TRAIN = "the king and the queen rule the land near the water. It's 1999, it isn't 2000!\n日本 日本 é é 😀😀\n" * 5
TRAINED = BpeTokenizer.of_texts([TRAIN], 300)


@pytest.fixture(scope="module")
def gpt2(shared_data):
    return BpeTokenizer.open(shared_data / "gpt2_bpe")


def tree(**changes):
    """A tokenizer.json with the bytes, two special tokens, and what a test changes."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    vocab = {char: number for number, char in enumerate(sorted(ALPHABET), start=3)} | {"Ġt": 259, "he": 260}
    model = {"type": "BPE", "vocab": vocab, "merges": [["Ġ", "t"], ["h", "e"]]}
    whole = {
        "added_tokens": [{"id": 1, "content": "<s>", **flags}, {"id": 2, "content": "</s>", **flags}],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "model": model | changes.pop("model", {}),
    }
    return whole | changes


def written(folder: Path, content) -> Path:
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return folder


def test_training_merges_what_is_frequent_and_only_as_far_as_asked():
    assert TRAINED.vocab_size == 300
    assert TRAINED.eos == 0
    assert " the" in TRAINED.words
    assert TRAINED.words[0] in TRAIN and len(TRAINED.words) == 300 - 257
    assert len(TRAINED.encode("the king")) < len("the king")
    assert BpeTokenizer.of_texts([TRAIN], 300) == TRAINED
    small = BpeTokenizer.of_texts(["ab ab"], 1000)
    assert small.words == ("ab", " ab")[: len(small.words)]
    assert small.decode(small.encode("xyz")) == "xyz"


@settings(deadline=None)
@given(st.text(), st.text())
def test_every_text_comes_back_also_in_parts(text, more):
    token_N, more_N = TRAINED.encode(text), TRAINED.encode(more)
    assert token_N.dtype == np.int32
    assert TRAINED.decode(token_N) == text
    assert TRAINED.decode([*token_N, TRAINED.eos, *more_N]) == text + more
    assert TRAINED.bytes_of_token[token_N].sum() == len(text.encode())
    assert TRAINED.eos not in token_N


@pytest.mark.parametrize("text", HARD, ids=range(len(HARD)))
def test_hard_texts_come_back(text):
    assert TRAINED.decode(TRAINED.encode(text)) == text


def test_every_line_is_followed_by_eos():
    lines = [*HARD, *TRAIN.split("\n")]
    expected = [token for line in lines for token in [*TRAINED.encode(line).tolist(), TRAINED.eos]]
    assert TRAINED.encode_lines(lines).tolist() == expected
    assert TRAINED.encode_lines(lines[:2]).tolist() == TRAINED.encode_lines(lines).tolist()[: 2 + 1]
    assert TRAINED.encode_lines([]).shape == (0,)


def test_half_of_a_surrogate_pair_is_refused():
    for use in (
        TRAINED.encode,
        lambda text: TRAINED.encode_lines([text]),
        lambda text: BpeTokenizer.of_texts([text], 300),
    ):
        with pytest.raises(UnknownCharacter, match=r"character '\\udc00' \(U\+DC00\) is half of a surrogate pair"):
            use("a\udc00b")


def test_the_run_file_has_all_that_is_needed():
    content = json.loads(json.dumps(TRAINED.to_json()))
    again = tokenizer_from_json(content)
    assert again == TRAINED
    assert again.encode(TRAIN).tolist() == TRAINED.encode(TRAIN).tolist()
    with pytest.raises(UserError, match="wants kind 'bpe', got 'bytes'"):
        BpeTokenizer.from_json({"kind": "bytes"})


def test_tokens_can_be_read():
    tokens = TRAINED.encode(" the\n\u0141")
    assert [TRAINED.spell(token) for token in tokens.tolist()] == ["␣the", "\\n", "<0xC5>", "<0x81>"]
    assert TRAINED.spell(TRAINED.eos) == "⏎"
    assert TRAINED.decode([TRAINED.start]) == "\n"


GPT4 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
WORDS_WITH_BLANKS = r"\S+\s*"


def cut_by(pattern):
    """TRAINED with another pattern."""
    content = json.loads(json.dumps(TRAINED.to_json()))
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    content["huggingface"]["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, byte_level]}
    return tokenizer_from_json(content)


@pytest.mark.parametrize("size", [1, 7, 50])
@pytest.mark.parametrize("bpe", [TRAINED, cut_by(GPT4), cut_by(WORDS_WITH_BLANKS)], ids=["gpt2", "gpt4", "other"])
def test_a_long_text_in_pieces_has_the_tokens_of_the_whole(bpe, size, monkeypatch):
    text = "".join(HARD) + TRAIN
    monkeypatch.setattr(long_texts.pieces, "__defaults__", (size,))
    assert "".join(long_texts.pieces(text)) == text
    assert len(list(long_texts.pieces(text))) > 10
    whole = bpe._encoder.encode(text, add_special_tokens=False).ids
    assert bpe.encode(text).tolist() == whole


def test_batches_have_every_text_once_and_are_bounded():
    texts = ["ab" * n for n in range(20)]
    batches = list(long_texts.batches(texts, 30))
    assert [text for batch in batches for text in batch] == texts
    assert all(len("".join(batch[:-1])) < 30 for batch in batches)


def test_a_tokenizer_json_is_opened_with_its_ids_and_specials_are_no_text(tmp_path):
    ours = BpeTokenizer.open(written(tmp_path, tree()), "</s>")
    assert (ours.eos, ours.vocab_size) == (2, 261)
    assert ours.words == (" t", "he")
    assert ours.encode(" the").tolist() == [259, 260]
    text = "<s> the </s>"
    assert not {1, 2} & set(ours.encode(text).tolist())
    assert ours.decode([1, *ours.encode(text), 2]) == text
    assert ours.bytes_of_token[[0, 1, 2, 259]].tolist() == [0, 0, 1, 2]
    assert [ours.spell(token) for token in (0, 1, 2)] == ["<0>", "<s>", "⏎"]
    assert BpeTokenizer.open(tmp_path / "tokenizer.json", "</s>") == ours


def test_the_end_is_named_by_the_files_or_by_the_setting(tmp_path):
    with pytest.raises(UserError, match=r"^data\.tokens\.eos wants .*got None; .* has these: <s>, </s>$"):
        BpeTokenizer.open(written(tmp_path, tree()))
    with pytest.raises(UserError, match=r"^data\.tokens\.eos wants .*got '<e>'; "):
        BpeTokenizer.open(tmp_path, "<e>")
    for named in ("</s>", {"content": "</s>"}):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": named}))
        assert BpeTokenizer.open(tmp_path).eos == 2


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model": {"type": "Unigram"}}, "a Unigram cut by ByteLevel"),
        ({"pre_tokenizer": None}, "a BPE cut by nothing"),
        ({"pre_tokenizer": {"type": "Metaspace"}}, "a BPE cut by Metaspace"),
        ({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True}}, "adds a blank before a text"),
        ({"normalizer": {"type": "NFC"}}, r"changes a text first \(normalizer NFC\)"),
        ({"model": {"end_of_word_suffix": "</w>"}}, "marks the ends of words"),
        ({"model": {"vocab": {"a": 0}}}, "without the byte 0x00"),
        (
            {
                "pre_tokenizer": {
                    "type": "Sequence",
                    "pretokenizers": [{"type": "Whitespace"}, {"type": "ByteLevel", "add_prefix_space": False}],
                }
            },
            "one cut by Whitespace",
        ),
        ({"added_tokens": [{"id": 3, "content": "hm", "special": False}]}, "no numbers of their own below 16,777,216"),
        ({"added_tokens": [{"id": 2**24, "content": "hm", "special": False}]}, "no numbers of their own"),
        ({"model": {"vocab": dict.fromkeys([*ALPHABET, "日"], 0)}}, "'日' is not written in bytes"),
        ({"added_tokens": [{"id": 300, "content": "hm", "special": False, "lstrip": True}]}, "'hm' takes the blanks"),
    ],
)
def test_a_tokenizer_that_would_not_keep_every_text_is_refused(tmp_path, changes, reason):
    wanted = rf"^data\.tokens\.path wants byte-level BPE that keeps every text as it is, got .*{reason}"
    with pytest.raises(UserError, match=wanted) as told:
        BpeTokenizer.open(written(tmp_path, tree(**changes)), "</s>")
    assert "\n" not in str(told.value)


def test_what_is_no_tokenizer_is_named(tmp_path):
    for path, reason in ((tmp_path, "a directory with tokenizer"), (tmp_path / "none", "does not exist")):
        with pytest.raises(UserError, match=rf"^data\.tokens\.path .*{reason}"):
            BpeTokenizer.open(path)
    (tmp_path / "tokenizer.json").write_text("[]")
    with pytest.raises(UserError, match=r"^data\.tokens\.path wants Hugging Face's tokenizer\.json, got .*no model"):
        BpeTokenizer.open(tmp_path)
    lacks = tree(pre_tokenizer={"type": "ByteLevel", "add_prefix_space": False})
    with pytest.raises(
        UserError, match=r"^data\.tokens\.path .*: tokenizers \S+ cannot read this tokenizer\.json: missing field"
    ):
        BpeTokenizer.open(written(tmp_path, lacks), "</s>")
    with pytest.raises(UserError, match=r"^data\.tokens\.path wants .* with other parts \(KeyError: 'content'\)$"):
        BpeTokenizer.open(written(tmp_path, tree(added_tokens=[{}])), "</s>")
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match=r"^data\.tokens\.path wants JSON in "):
        BpeTokenizer.open(tmp_path)


def test_gpt2s_files_give_the_published_ids(gpt2):
    """Ids as OpenAI's encoder.py gives them."""
    assert (gpt2.vocab_size, gpt2.eos) == (50_257, 50_256)
    assert gpt2.encode("Hello, world!").tolist() == [15496, 11, 995, 0]
    assert gpt2.encode("<|endoftext|>").tolist() == [27, 91, 437, 1659, 5239, 91, 29]
    assert gpt2.decode([15496, 50256, 11]) == "Hello,"


@pytest.fixture(scope="module")
def peers(shared_data):
    """What tiktoken and transformers make of GPT-2's files, text to ids (extra `peers`)."""
    tiktoken = pytest.importorskip("tiktoken")
    from tiktoken.load import data_gym_to_mergeable_bpe_ranks
    from tiktoken_ext.openai_public import r50k_pat_str

    pytest.importorskip("transformers")
    from transformers import GPT2Tokenizer

    merges, vocab = (shared_data / "gpt2_bpe" / name for name in ("vocab.bpe", "encoder.json"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", "")
        ranks = data_gym_to_mergeable_bpe_ranks(str(merges), str(vocab))
    one = tiktoken.Encoding("gpt2", pat_str=r50k_pat_str, mergeable_ranks=ranks, special_tokens={})
    pairs: Any = [tuple(line.split(" ")) for line in merges.read_text("utf-8").split("\n")[1:] if line]
    other = GPT2Tokenizer(vocab=json.loads(vocab.read_text("utf-8")), merges=pairs)
    return one.encode, lambda text: other.encode(text, split_special_tokens=True)


def test_ids_are_those_of_other_programs(gpt2, peers):
    for text in (*HARD, "\n".join(HARD)):
        for encode in peers:
            assert gpt2.encode(text).tolist() == encode(text), text


@settings(deadline=None, max_examples=200)
@given(st.text())
def test_ids_are_those_of_other_programs_for_any_text(gpt2, peers, text):
    for encode in peers:
        assert gpt2.encode(text).tolist() == encode(text)


def test_settings_build_it_and_are_refused_where_they_have_no_effect(shared_data):
    assert jaxlm.BpeConfig(vocab_size=300).build("", [TRAIN]) == TRAINED
    assert jaxlm.BytesConfig().build("", []).vocab_size == 257
    with pytest.raises(UserError, match=r"^data\.tokens\.vocab_size wants a number from 257 to"):
        jaxlm.BpeConfig(vocab_size=256)
    with pytest.raises(UserError, match=r"^data\.tokens\.vocab_size 300 has no effect with data\.tokens\.path 'x'"):
        jaxlm.BpeConfig(vocab_size=300, path="x")
    with pytest.raises(UserError, match=r"^data\.tokens\.eos </s> has no effect with data\.tokens\.path None"):
        jaxlm.BpeConfig(eos="</s>")
    assert {kind.__name__ for kind in CHOICES.values()} <= set(jaxlm.__all__)
