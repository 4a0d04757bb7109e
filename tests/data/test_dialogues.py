"""Dialogues: split whole, turns in their order, every byte counted; and words as tokens of any model."""

import itertools

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxlm
from jaxlm.config import CharactersConfig, DataConfig, ReanTokensConfig
from jaxlm.data.bigrams import count_bigrams
from jaxlm.data.corpus import SPLITS, encode_text, from_dialogues, from_lines, from_stream, split_dialogues
from jaxlm.tokenizers import EOS, CharTokenizer, ReanTokenizer
from jaxlm.tokenizers.rean_tokens import pieces
from tests.conftest import opened

TALKS = [
    [f"human: what is {i}?", f"network: it is {'so ' * (i % 5)}{i}."] + ["human: thanks"] * (i % 3) for i in range(30)
]
TEXT = "\n\n".join(map("\n".join, TALKS)) + "\n"
DIALOGUES = DataConfig(kind="dialogues", example="sequence", tokens=ReanTokensConfig(), max_length=16)
turns = st.text(st.characters(exclude_characters="\n"), min_size=1).filter(str.strip)


@given(st.lists(st.lists(turns, min_size=1), min_size=1), st.sampled_from(["\n\n", "\n \n\n"]))
def test_blank_lines_separate_dialogues(dialogues, blank):
    assert split_dialogues("\n" + blank.join(map("\n".join, dialogues)) + "\n") == dialogues


@pytest.mark.parametrize("tokens", [ReanTokensConfig(), CharactersConfig()])
def test_a_dialogue_stays_whole_and_its_turns_in_order(tokens):
    corpus = from_dialogues(TEXT, jaxlm.DataConfig(kind="dialogues", tokens=tokens))
    starts = [*np.flatnonzero(corpus.age_N == 0).tolist(), len(corpus.tokens_N)]
    dialogues = []
    for start, end in itertools.pairwise(starts):
        ends = np.flatnonzero(corpus.tokens_N[start:end] == EOS).tolist()
        assert ends[-2:] == [end - start - 2, end - start - 1]
        cuts = zip([0, *(place + 1 for place in ends)], ends[:-1], strict=False)
        dialogues.append([corpus.tokenizer.decode(corpus.tokens_N[start + a : start + b].tolist()) for a, b in cuts])
    assert dialogues != TALKS
    assert sorted(dialogues) == sorted(TALKS)
    assert [corpus.lines[split] for split in SPLITS] == [
        [turn for talk in part for turn in talk] for part in (dialogues[:24], dialogues[24:27], dialogues[27:])
    ]
    assert corpus.size("train") == starts[24]


@pytest.mark.parametrize("read", [from_lines, from_stream, from_dialogues])
@pytest.mark.parametrize("tokens", [ReanTokensConfig(), CharactersConfig()])
def test_the_bytes_of_all_tokens_are_those_of_the_text(read, tokens):
    kind = read.__name__.removeprefix("from_")
    corpus = read(TEXT, DataConfig(kind=kind, tokens=tokens))
    size = corpus.tokenizer.bytes_of_token[corpus.tokens_N].sum()
    blank = TEXT.count("\n\n")
    assert size == len(TEXT) + {"lines": -blank, "stream": 0, "dialogues": 1}[kind]
    again = encode_text(TEXT, corpus.tokenizer, kind)
    assert again.tokenizer.bytes_of_token[again.tokens_N].sum() == size


def test_words_come_from_train_alone():
    text = "\n".join(f"so it is {i // 2}-{i // 2}" for i in range(40))
    corpus = from_lines(text, DataConfig(tokens=ReanTokensConfig(min_count=2)))
    train = [word for line in corpus.lines["train"] for word in pieces(line)]
    assert set(corpus.tokenizer.words) == {word for word in train if train.count(word) > 1}
    assert set(corpus.tokenizer.words) < set(pieces(text))
    limited = from_lines(text, DataConfig(tokens=ReanTokensConfig(max_vocab=2)))
    assert limited.tokenizer.vocab_size == 257 + 2


@pytest.mark.parametrize("labels", [("human", "human"), ("a\nb", "c"), ("", "x")])
def test_labels_are_two_different_lines(labels):
    with pytest.raises(jaxlm.UserError, match=r"data\.labels wants two different labels"):
        DataConfig(labels=labels)


def test_pairs_of_a_large_vocabulary_are_those_of_its_frequent_tokens(monkeypatch):
    corpus = from_dialogues(TEXT, DIALOGUES)
    every = count_bigrams(corpus)
    monkeypatch.setattr("jaxlm.data.bigrams.KEPT_TOKENS", 6)
    few = count_bigrams(corpus)
    kept = [every.spelled.index(token) for token in few.spelled]
    assert len(kept) == 6
    assert set(np.argsort(-every.count_VV.sum(0))[:4]) <= set(kept)
    np.testing.assert_array_equal(few.count_VV, every.count_VV[np.ix_(kept, kept)])


@pytest.mark.parametrize("read", [from_dialogues, from_stream, from_lines])
def test_any_model_scores_and_samples_words(read):
    kind = read.__name__.removeprefix("from_")
    data = DataConfig(kind=kind, tokens=ReanTokensConfig(min_count=1))
    run = opened(jaxlm.CountsConfig(order=2, add_k=0.01), data, read(TEXT, data))
    assert isinstance(run.tokenizer, ReanTokenizer)
    score = jaxlm.score(run, TALKS[4][0] + "\n" + TALKS[4][1] + "\n").total
    assert score.bytes == len("\n".join(TALKS[4][:2])) + {"lines": 1, "stream": 1, "dialogues": 2}[kind]
    start = "human: what is 7?" + ("\nnetwork: " if kind == "dialogues" else "")
    texts = jaxlm.generate(run, n=3, prompt=start, key=jax.random.key(0), max_tokens=40)
    assert all(text.startswith(start) for text in texts)
    assert kind != "dialogues" or all("\n\n" not in text for text in texts)


def test_a_sampled_dialogue_ends_where_a_blank_line_would_stand():
    text = "\n\n".join(["a:x\nb:y"] * 20)
    data = DataConfig(kind="dialogues")
    run = opened(jaxlm.CountsConfig(order=3, add_k=0.0), data, from_dialogues(text, data))
    assert isinstance(run.tokenizer, CharTokenizer)
    key = jax.random.key(0)
    assert jaxlm.generate(run, prompt=["", "a:x\n"], key=key) == ["a:x\nb:y"] * 2
    assert jaxlm.generate(run, stop="\n", key=key) == ["a:x"]


def test_a_run_on_dialogues_of_characters_ends(tmp_path):
    """Its samples hold line ends, which no character stands for."""
    (tmp_path / "text.txt").write_text(TEXT)
    data = DataConfig(path=str(tmp_path / "text.txt"), kind="dialogues")
    config = jaxlm.RunConfig(model=jaxlm.CountsConfig(order=3), data=data, run_dir=str(tmp_path / "run"), plots=False)
    assert jaxlm.train(config, log=lambda line: None) == tmp_path / "run"
    assert "\n" in (tmp_path / "run" / "samples.txt").read_text().partition("\n---\n")[0]
