"""/v1/chat/completions: the next turn as Chat gives it, of runs on dialogues and of those with a template."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest

import jaxlm
from jaxlm.inference import engine
from jaxlm.inference.chat import Chat
from jaxlm.inference.sampling import Strategy
from jaxlm.tokenizers import ByteTokenizer
from tests.server.running import Client, serving

ONE = [{"role": "user", "content": "one?"}]
TWO = [*ONE, {"role": "assistant", "content": "1 is one."}, {"role": "user", "content": "  é?\n"}]


def streamed(client: Client, **fields: Any) -> tuple[str, str]:
    """The text of a stream and why it ended."""
    events = client.post("/v1/chat/completions", stream=True, **fields).events
    choices = [event["choices"][0] for event in events]
    assert choices[0]["delta"] == {"role": "assistant", "content": ""} and choices[-1]["delta"] == {}
    assert all(choice["finish_reason"] is None for choice in choices[:-1])
    return "".join(choice["delta"].get("content", "") for choice in choices), choices[-1]["finish_reason"]


def answered(client: Client, **fields: Any) -> tuple[str, str]:
    answer = client.post("/v1/chat/completions", **fields)
    assert answer.status == 200, answer
    choice = answer.tree["choices"][0]
    assert choice["message"]["role"] == "assistant"
    return choice["message"]["content"], choice["finish_reason"]


def test_an_answer_is_that_of_chat(client: Client, runs):
    chat = Chat(runs["talk"], Strategy(), jax.random.key(0))
    for messages in (ONE, TWO):
        want = "".join(chat.reply(messages[-1]["content"]))
        for ask in (answered, streamed):
            assert ask(client, model="talk", messages=messages, seed=0) == (want, "stop")
    assert want == "no ü."


def test_limits_and_stops_of_an_answer(client: Client):
    fields: dict[str, Any] = {"model": "talk", "messages": ONE, "seed": 0}
    for ask in (answered, streamed):
        assert ask(client, **fields, max_completion_tokens=4) == ("1 is", "length")
        assert ask(client, **fields, stop="is one") == ("1 ", "stop")


def test_likelihoods_of_an_answers_tokens(client: Client, runs):
    fields: dict[str, Any] = {"model": "talk", "messages": ONE, "logprobs": True, "top_logprobs": 2}
    choice = client.post("/v1/chat/completions", **fields).tree["choices"][0]
    tokens = choice["logprobs"]["content"]
    assert "".join(token["token"] for token in tokens) == choice["message"]["content"] == "1 is one."
    for token in tokens:
        assert bytes(token["bytes"]).decode() == token["token"]
        assert len(token["top_logprobs"]) == 2 and token["top_logprobs"][0]["logprob"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([], "messages"),
        ("hello", "messages"),
        ([{"role": "system", "content": "x"}, *ONE], "messages[0].role"),
        ([{"role": "user"}], "messages[0].content"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "messages[0].content"),
        (TWO[:2], "messages"),
    ],
)
def test_conversations_that_cannot_be_answered_are_named(client: Client, messages, param):
    answer = client.post("/v1/chat/completions", model="talk", messages=messages)
    assert answer.status == 400 and answer.error["param"] == param


def test_parts_of_text_are_a_message(client: Client):
    content = [{"type": "text", "text": "on"}, {"type": "text", "text": "e?"}]
    assert answered(client, model="talk", messages=[{"role": "user", "content": content}])[0] == "1 is one."


def test_a_run_that_was_not_trained_on_dialogues_says_so(client: Client):
    error = client.post("/v1/chat/completions", model="names", messages=ONE).error
    assert error["code"] == "unsupported_model" and "trained on lines; ask /v1/completions" in error["message"]


TEMPLATE = """{{ bos_token }}{% for m in messages %}
{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}
<{{ m.role }}>{{ m.content }}<end>
{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"""


@dataclasses.dataclass(frozen=True)
class Templated(ByteTokenizer):
    """Bytes, with a chat template as an imported tokenizer has it: "<end>" is the token that ends a turn."""

    chat_template: str = TEMPLATE
    bos_text: str = ""
    eos_text: str = ""

    @property
    def end_tokens(self) -> tuple[int, ...]:
        return (self.eos, 1 + ord("|"))

    def encode_special(self, text: str) -> np.ndarray:
        return self.encode(text.replace("<end>", "|"))


@pytest.fixture(scope="module")
def imported(runs: dict[str, jaxlm.Run]):
    """A client of a run with a template."""
    run = dataclasses.replace(runs["gpt"], tokenizer=Templated())
    with serving(("imported", run)) as client:
        yield client, run


def test_a_template_makes_the_prompt_and_its_end_tokens_end_the_answer(imported):
    client, run = imported
    messages = [{"role": "user", "content": "hi"}]
    tokens = run.tokenizer.encode("<user>hi|\n<assistant>").tolist()
    (new,) = engine.decode(
        run.model,
        run.params,
        [tokens],
        settings=Strategy().rows(1),
        key=jax.random.key(4),
        place_B=np.zeros(1, np.int32),
        limit_B=np.array([40], np.int32),
        allowed_V=np.ones(run.tokenizer.vocab_size, bool),
        goes_on=True,
    )
    ends = [place for place, token in enumerate(new[0]) if token in run.tokenizer.end_tokens]
    assert ends, "another seed is wanted"
    want = run.tokenizer.decode(new[0][: ends[0]]), "stop"
    for ask in (answered, streamed):
        assert ask(client, messages=messages, seed=4, max_tokens=40) == want


def test_a_template_may_refuse_and_may_not_reach_out(imported, runs):
    client, _ = imported
    error = client.post("/v1/chat/completions", messages=[{"role": "system", "content": "x"}]).error
    assert error["param"] == "messages" and "no system" in error["message"]
    evil = Templated("{{ messages.__class__.__mro__[1].__subclasses__() }}{{ messages.append(1) }}")
    with serving(("evil", dataclasses.replace(runs["gpt"], tokenizer=evil))) as client:
        answer = client.post("/v1/chat/completions", messages=ONE)
        assert answer.status == 400 and "unsafe" in answer.error["message"]
