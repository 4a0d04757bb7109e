"""Chat: whole turns are remembered, answers come in pieces and end with their turn, commands do what they say."""

import dataclasses
import functools
import io
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import jaxlm
from jaxlm.cli import interactive
from jaxlm.cli.sample_command import parse_sample
from jaxlm.data.corpus import from_dialogues
from jaxlm.errors import UserError
from jaxlm.inference.chat import Chat
from jaxlm.inference.sampling import Strategy
from jaxlm.tokenizers import EOS
from tests.conftest import opened

TEXT = "\n\n".join(["ask: one?\ntell: 1 is one.\nask: é?\ntell: no ü."] * 20)
DATA: dict[str, Any] = {
    "kind": "dialogues",
    "tokens": jaxlm.ReanTokensConfig(min_count=18),
    "labels": ("ask", "tell"),
    "example": "sequence",
}


SETTINGS = jaxlm.DataConfig(**DATA)
CORPUS = from_dialogues(TEXT, SETTINGS)


@pytest.fixture(scope="module")
def run():
    return opened(jaxlm.CountsConfig(order=6, add_k=0.0), SETTINGS, CORPUS)


@pytest.fixture(scope="module")
def gpt():
    return opened(jaxlm.GptConfig(context=16, n_layers=1, n_heads=2, d_model=8), SETTINGS, CORPUS)


WIDE: Any = jaxlm.GptConfig(context=128, n_layers=1, n_heads=2, d_model=8, vocab_size=CORPUS.tokenizer.vocab_size)
KEY = jax.random.key(3)


@functools.cache
def wide_params() -> Any:
    """Parameters of a model that draws words more often than bytes, of which most are no text."""
    params = jax.jit(WIDE.build().init)(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))
    words = jnp.arange(CORPUS.tokenizer.vocab_size) > 256
    return params | {"norm_bias": jnp.full_like(params["norm_bias"], 5.0), "out": params["out"] + words[:, None] * 0.2}


def test_answers_come_in_pieces_of_whole_characters_and_turns_are_kept(run):
    chat = Chat(run, Strategy(), jax.random.key(0))
    pieces = list(chat.reply("one?"))
    assert "".join(pieces) == "1 is one."
    assert len(pieces) > 3
    assert "".join(chat.reply("  é? ")) == "no ü."
    assert len(chat.turns) == 4
    assert all(turn[-1] == EOS and turn.count(EOS) == 1 for turn in chat.turns)
    chat.reset()
    assert not chat.turns


def test_a_draft_proposes_an_answer(run, monkeypatch, capsys):
    """The bigram agrees on most tokens of the only answer that there is."""
    draft = opened(jaxlm.CountsConfig(order=2, add_k=0.0), SETTINGS, CORPUS)
    chat = Chat(run, Strategy(), jax.random.key(0), draft=draft, draft_tokens=3)
    pieces = list(chat.reply("one?"))
    assert "".join(pieces) == "1 is one." and 1 < len(pieces) < 8
    monkeypatch.setattr("sys.stdin", io.StringIO("one?\n"))
    interactive.converse(parse_sample(["runs/any", "--interactive", "--draft", "runs/other"]), run, draft)
    assert capsys.readouterr().out == "tell: 1 is one.\n"
    letters = dataclasses.replace(SETTINGS, tokens=jaxlm.CharactersConfig())
    other = opened(jaxlm.CountsConfig(order=2), letters, from_dialogues(TEXT, letters))
    with pytest.raises(UserError, match="wants the tokenizer of run"):
        list(dataclasses.replace(chat, draft=other).reply("one?"))


def test_an_answer_that_is_broken_off_or_too_long_is_kept_as_far_as_it_came(run):
    chat = Chat(run, Strategy(), jax.random.key(0), max_tokens=3)
    assert len(list(chat.reply("one?"))) == 3
    assert len(chat.turns[-1]) == 2 + 3 + 1
    chat.max_tokens = 200
    pieces = chat.reply("é?")
    first = next(pieces)
    pieces.close()
    assert chat.run.tokenizer.decode(chat.turns[-1]) == f"tell: {first}"


def test_the_context_is_cropped_by_whole_turns(gpt):
    chat = Chat(gpt, Strategy(), jax.random.key(0), max_tokens=4)
    chat.turns = [[1, 2, 3, EOS], [4, 5, EOS], [6, 7, 8, EOS]]
    assert chat.seen([9, 9]) == [EOS, 4, 5, EOS, 6, 7, 8, EOS, 9, 9]
    assert chat.seen([9] * 8) == [EOS, *[9] * 8]
    assert chat.seen([9] * 30) == [9] * 12


def test_an_answer_may_be_longer_than_what_the_model_sees(gpt):
    chat = Chat(gpt, Strategy(), jax.random.key(0), max_tokens=50)
    gpt.params["out"] = gpt.params["out"].at[EOS].set(0.0)
    said = [len(list(chat.reply("one? " * 5))) for _ in range(3)]
    assert max(len(turn) for turn in chat.turns) > 16
    assert len(said) == 3


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"temperature": 0.5, "top_k": 9, "repetition_penalty": 1.2}])
def test_an_answer_is_what_generate_gives_at_its_place(gpt, settings):
    """The same seed, the same text: answer i is place i of what the whole conversation is a prompt of."""
    run = dataclasses.replace(gpt, model=WIDE.build(), params=wide_params())
    chat = Chat(run, Strategy(**settings), KEY, max_tokens=12)
    conversation, answers = "", []
    for number, said in enumerate(("one?", "é?", "one?")):
        answer = "".join(chat.reply(said))
        conversation += f"ask: {said}\ntell: "
        texts = jaxlm.generate(run, n=number + 1, prompt=conversation, max_tokens=12, key=KEY, **settings)
        assert answer == texts[number][len(conversation) :].partition("\n")[0]
        stopped = jaxlm.generate(run, n=number + 1, prompt=conversation, max_tokens=12, stop="\n", key=KEY, **settings)
        assert stopped[number] == conversation + answer
        conversation += f"{answer}\n"
        answers.append(answer)
    assert len(set(answers)) == 3 and all(answers)


@pytest.mark.parametrize("option", ["-n=3", "--stop=x"])
def test_a_dialogue_takes_no_option_that_it_would_ignore(run, option):
    with pytest.raises(UserError, match=rf"^{option.partition('=')[0]} does not go with --interactive"):
        interactive.converse(parse_sample(["runs/any", "--interactive", option]), run)


def test_the_command_line_converses(run, monkeypatch, capsys):
    typed = "one?\n/temperature 0\né?\n/reset\n/temperature x\n/temperature -1\n/help\none?\n\n/quit\nnever\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    interactive.converse(parse_sample(["runs/any", "--interactive"]), run)
    told = capsys.readouterr().out.splitlines()
    assert told[:2] == ["tell: 1 is one.", "tell: no ü."]
    assert told[2] == "error: /temperature wants a number, got 'x'"
    assert told[3].startswith("error: temperature wants a number >= 0")
    assert told[4].startswith("a line and Enter")
    assert told[-1] == "tell: 1 is one."
