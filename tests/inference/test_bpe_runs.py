"""Runs on bytes and byte-level BPE: whole characters, their own EOS, and no special token in a text."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest

import jaxlm
from jaxlm.data.corpus import encode_text, from_dialogues, from_lines
from jaxlm.data.dataset import Dataset
from jaxlm.inference.chat import Chat, open_end
from jaxlm.inference.generate import drawn_tokens, pieces, prompt_tokens
from jaxlm.inference.sampling import Strategy
from jaxlm.models.check import build
from jaxlm.tokenizers import BpeTokenizer, ByteTokenizer, CharTokenizer, ReanTokenizer

pytest.importorskip("tokenizers")

NAMES = "anna\nzoë\nhannah\njosé\nanna maria\n"
TALK = "\n\n".join(["ask: one two?\ntell: two is é one.\nask: three?\ntell: no one."] * 20)
TRAINED = BpeTokenizer.of_texts([TALK, NAMES], 290)
LAST = BpeTokenizer(
    TRAINED.model.replace('"<|endoftext|>":0', '"<|endoftext|>":290').replace('"id":0', '"id":290'), 290
)
"""The same tokens with EOS as the last one and none at 0, as GPT-2's."""


def opened(data: jaxlm.DataConfig, corpus, model: jaxlm.ModelConfig) -> jaxlm.Run:
    """A run in memory: counts of all of the corpus, for its own EOS."""
    built: Any = build(model.filled(corpus.tokenizer.vocab_size, 64), eos=corpus.tokenizer.eos)
    params = built.fit(corpus.tokens_N, corpus.age_N)[0]
    return jaxlm.Run(None, jaxlm.RunConfig(model=model, data=data, steps=1), corpus.tokenizer, built, params, 1)  # type: ignore[arg-type]


@pytest.fixture(params=[TRAINED, LAST], ids=["trained", "last"])
def tokenizer(request):
    return request.param


def lines(tokenizer, **data) -> tuple[jaxlm.DataConfig, Any]:
    config = jaxlm.DataConfig(split=(1, 0, 0), **data)
    return config, from_lines(NAMES, config, tokenizer)


def test_lines_come_back_from_their_tokens(tokenizer):
    _, corpus = lines(tokenizer)
    assert sorted(corpus.lines["train"]) == sorted(NAMES.strip().split("\n"))
    ends = np.flatnonzero(corpus.tokens_N == tokenizer.eos)
    assert len(ends) == 5
    assert corpus.age_N[0] == 0 and not corpus.age_N[ends[:-1] + 1].any()


@pytest.mark.parametrize("example", ["window", "sequence"])
def test_eos_stands_before_every_line(tokenizer, example):
    data, corpus = lines(tokenizer, example=example)
    config = jaxlm.RunConfig(model=jaxlm.MlpConfig(), data=data, steps=1, batch_size=1)
    dataset = Dataset(config, corpus, context=3, max_length=None)
    first = np.asarray(dataset.batch(dataset.rows["train"][:1]).tok)[0]
    if example == "window":
        assert first.tolist() == [tokenizer.eos] * 3
    else:
        length = int(np.flatnonzero(corpus.tokens_N == tokenizer.eos)[0]) + 1
        assert first[:length].tolist() == [tokenizer.eos, *corpus.tokens_N[: length - 1].tolist()]


def test_texts_are_whole_lines_of_what_was_learned_by_heart(tokenizer):
    data, corpus = lines(tokenizer)
    run = opened(data, corpus, jaxlm.CountsConfig(order=6, add_k=0.0))
    texts = jaxlm.generate(run, n=40, key=jax.random.key(0))
    assert set(texts) == set(NAMES.strip().split("\n"))
    assert jaxlm.generate(run, n=1, prompt="zo", key=jax.random.key(0))[0].startswith("zo")
    assert jaxlm.score(run, "zoë").total.bytes == len("zoë\n".encode())


def test_no_text_has_a_special_token_and_none_without_text_is_drawn(tokenizer):
    data, corpus = lines(tokenizer)
    run = opened(data, corpus, jaxlm.CountsConfig(order=2))
    assert prompt_tokens(run, "<|endoftext|>").count(tokenizer.eos) == 1
    allowed = set(np.flatnonzero(drawn_tokens(run)).tolist())
    assert tokenizer.eos in allowed
    assert all(token == tokenizer.eos or tokenizer.bytes_of_token[token] for token in allowed)
    assert (0 in allowed) == (tokenizer.eos == 0)
    stream = dataclasses.replace(run, config=dataclasses.replace(run.config, data=jaxlm.DataConfig(kind="stream")))
    assert tokenizer.eos not in np.flatnonzero(drawn_tokens(stream))


@pytest.mark.parametrize("tokenizer", [ByteTokenizer(), TRAINED], ids=["bytes", "bpe"])
def test_a_character_is_given_when_its_last_byte_has_come(tokenizer):
    data, corpus = lines(tokenizer)
    run = opened(data, corpus, jaxlm.CountsConfig(order=2))
    text = "a€😀e\u0301 ok"
    byte = {tokenizer.spell(token): token for token in range(tokenizer.vocab_size)}
    spelled = [byte[f"<0x{b:02X}>"] if b > 126 else byte["␣" if b == 32 else chr(b)] for b in text.encode()]
    given = list(pieces(run, ([token] for token in spelled), [""]))
    assert given == list(text)
    broken = spelled[:2]
    assert list(pieces(run, ([token] for token in broken), [""])) == ["a", "\ufffd"]


def test_a_label_ends_where_the_answer_may_begin():
    whole = "tell: "
    for tokenizer in (CharTokenizer.of_text(TALK), ReanTokenizer.of_texts([TALK]), ByteTokenizer()):
        kept, rest = open_end(tokenizer, whole)
        assert (kept, rest) == (tokenizer.encode(whole).tolist(), "")
    kept, rest = open_end(TRAINED, whole)
    assert (TRAINED.decode(kept), rest) == ("tell:", " ")
    tokens = TRAINED.encode("tell: two").tolist()
    assert tokens[: len(kept)] == kept


def test_a_chat_answers_as_the_text_goes_on_and_keeps_its_turns(tokenizer):
    data = jaxlm.DataConfig(kind="dialogues", labels=("ask", "tell"), split=(1, 0, 0), example="sequence")
    corpus = from_dialogues(TALK, data, tokenizer)
    assert len(corpus.lines["train"]) == 80
    run = opened(data, corpus, jaxlm.CountsConfig(order=20, add_k=0.0))
    chat = Chat(run, Strategy(), jax.random.key(0))
    assert "".join(chat.reply("one two?")) == "two is é one."
    assert "".join(chat.reply(" three? ")) == "no one."
    assert [tokenizer.decode(turn) for turn in chat.turns] == TALK.split("\n\n")[0].split("\n")
    whole = encode_text(TALK.split("\n\n")[0], tokenizer, "dialogues").tokens_N.tolist()
    assert [token for turn in chat.turns for token in turn] + [tokenizer.eos] == whole
