"""/v1/completions: texts are those of jaxlm.generate, streamed or not; likelihoods are those of jaxlm.score."""

import concurrent.futures
import math
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxlm
from jaxlm.server.choices import Part, Scored, merged
from tests.server.running import Answer, Client

ALL = ("names", "bigram", "verses", "gpt")


def generated(run: jaxlm.Run, prompt: Any = "", **options: Any) -> list[str]:
    """Texts of jaxlm.generate without their prompts."""
    options = {"max_tokens": 16} | options
    prompts, n = [prompt] if isinstance(prompt, str) else prompt, options.get("n", 1)
    texts = jaxlm.generate(run, prompt=prompt, key=jax.random.key(options.pop("seed", 0)), **options)
    return [text.removeprefix(prompts[i // n]) for i, text in enumerate(texts)]


def joined(answer: Answer) -> dict[int, tuple[str, str, list[Any]]]:
    """Each choice of a stream: its text, why it ended, and its tokens' log p."""
    found: dict[int, tuple[str, str, list[Any]]] = {}
    for event in answer.events:
        for choice in event["choices"]:
            text, reason, scores = found.get(choice["index"], ("", "", []))
            assert not reason, "nothing comes after the end"
            log_p = (choice["logprobs"] or {}).get("token_logprobs", [])
            found[choice["index"]] = text + choice["text"], choice["finish_reason"] or "", scores + log_p
    return found


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0, "max_tokens": 9},
        {"temperature": 0.7, "top_k": 5, "n": 3},
        {"top_p": 0.8, "min_p": 0.05, "repetition_penalty": 1.3, "max_tokens": 40},
    ],
)
def test_texts_are_those_that_generate_gives_with_the_seed(client: Client, runs, name, options):
    prompts = ["e", ""] if name in ("names", "bigram") else ["the ", "é"]
    want = generated(runs[name], prompts, seed=3, **options)
    assert client.texts(model=name, prompt=prompts, seed=3, **options) == want
    streamed = joined(client.post("/v1/completions", model=name, prompt=prompts, seed=3, stream=True, **options))
    assert [streamed[i][0] for i in range(len(want))] == want


def test_requests_at_once_have_the_texts_that_they_have_alone(client: Client, runs):
    asked = [
        {"model": ALL[i % 4], "prompt": "ea"[i % 2], "seed": i, "max_tokens": 5 + i % 12, "temperature": 0.5 + i / 10}
        for i in range(24)
    ]
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        got = list(pool.map(lambda fields: client.texts(**fields)[0], asked))
    for fields, text in zip(asked, got, strict=True):
        options = {name: value for name, value in fields.items() if name not in ("model", "prompt")}
        assert text == generated(runs[fields["model"]], fields["prompt"], **options)[0]


def test_a_text_and_its_tokens_are_the_same_prompt(client: Client, runs):
    for name, text in (("names", "em"), ("gpt", "the é"), ("verses", "the king")):
        tokens = runs[name].tokenizer.encode(text).tolist()
        options: dict[str, Any] = {"model": name, "seed": 5, "echo": True}
        assert client.texts(prompt=text, **options) == client.texts(prompt=tokens, **options)
        both = client.texts(prompt=[tokens, tokens], **options)
        assert both[0] == client.texts(prompt=text, **options)[0] and all(one.startswith(text) for one in both)


STOPS = ("the", "e", "q", " 日", "\u00e9", "king ö", "a\u0308", "and the queen", "n", "本 near", ". ")


def test_stops_never_leak_and_streams_are_what_is_not_streamed(client: Client, runs):
    """Joined, the pieces are the text: a piece that ended within a character would have other ones."""

    @settings(max_examples=25)
    @given(
        st.sampled_from(["verses", "gpt"]),
        st.lists(st.sampled_from(STOPS), max_size=3),
        st.integers(0, 50),
        st.sampled_from([0.3, 1.0]),
        st.sampled_from([1, 11, 60]),
    )
    def check(name: str, stops: list[str], seed: int, temperature: float, most: int) -> None:
        options = {"max_tokens": most, "temperature": temperature, "seed": seed}
        fields = {"model": name, "prompt": "the ", "stop": stops, "logprobs": 1, **options}
        answer = client.complete(**fields)["choices"][0]
        whole = generated(runs[name], "the ", **options)[0]
        cuts = [whole.find(stop) for stop in stops if stop in whole]
        assert answer["text"] == whole[: min(cuts, default=len(whole))]
        assert answer["finish_reason"] == ("stop" if cuts else "length")
        text, reason, log_p = joined(client.post("/v1/completions", stream=True, **fields))[0]
        assert (text, reason) == (answer["text"], answer["finish_reason"])
        assert log_p == answer["logprobs"]["token_logprobs"]

    check()


def test_the_text_before_a_stop_has_its_tokens_alone(client: Client):
    fields: dict[str, Any] = {"model": "verses", "prompt": "the king ", "temperature": 0, "max_tokens": 40}
    answer = client.complete(**fields, logprobs=0, stop=["nothing", "king"])["choices"][0]
    assert answer["text"] == "ö and the "
    assert "".join(answer["logprobs"]["tokens"][2:]) == " and the ", "after the two bytes of ö"
    assert answer["logprobs"]["text_offset"][:4] == [0, 0, 1, 2]
    assert answer["logprobs"]["tokens"][:2] == ["bytes:\\xc3", "bytes:\\xb6"]


@pytest.mark.parametrize("name", ["names", "bigram"])
def test_the_likelihood_of_a_prompt_is_its_score(client: Client, runs, name):
    fields = {"model": name, "prompt": "emma", "echo": True, "logprobs": 2, "max_tokens": 0}
    choice = client.complete(**fields)["choices"][0]
    nats = jaxlm.score(runs[name], "emma\n").nats[:4]
    np.testing.assert_allclose(-np.array(choice["logprobs"]["token_logprobs"]), nats, atol=2e-5)
    assert choice["text"] == "emma" and choice["logprobs"]["tokens"] == list("emma")
    assert choice["logprobs"]["text_offset"] == [0, 1, 2, 3]
    scores = [choice["logprobs"][key] for key in ("tokens", "token_logprobs", "top_logprobs")]
    for token, log_p, top in zip(*scores, strict=True):
        assert 2 <= len(top) <= 3 and top[token] == log_p <= max(top.values())
    assert client.complete(**fields)["usage"]["completion_tokens"] == 0
    streamed = joined(client.post("/v1/completions", stream=True, **fields))
    assert streamed[0] == ("emma", "length", choice["logprobs"]["token_logprobs"])


def test_the_first_token_of_running_text_has_no_likelihood(client: Client, runs):
    for name in ("verses", "gpt"):
        fields = {"model": name, "prompt": "the é", "echo": True, "logprobs": 0, "max_tokens": 3, "temperature": 0}
        choice = client.complete(**fields)["choices"][0]
        scores = choice["logprobs"]
        assert scores["token_logprobs"][0] is None and scores["top_logprobs"][0] is None
        tokens = runs[name].tokenizer.encode("the é").tolist()
        assert len(scores["tokens"]) == len(tokens) + 3
        logits_TV = runs[name].model.apply(runs[name].params, jax.numpy.asarray([tokens]))[0]
        log_p_TV = np.asarray(jax.nn.log_softmax(logits_TV.astype("float32")))
        want = [log_p_TV[i, token] for i, token in enumerate(tokens[1:])]
        np.testing.assert_allclose(scores["token_logprobs"][1 : len(tokens)], want, atol=2e-5)


def test_what_is_impossible_has_a_number_that_json_has(client: Client, runs):
    choice = client.complete(model="talk", prompt="ask: ü", echo=True, logprobs=1, max_tokens=0)["choices"][0]
    assert min(choice["logprobs"]["token_logprobs"]) == -9999.0
    assert all(math.isfinite(log_p) for log_p in choice["logprobs"]["token_logprobs"])


def test_numbers_of_tokens(client: Client):
    tree = client.complete(model="gpt", prompt=["the é", "k"], n=2, max_tokens=7, seed=0)
    assert tree["usage"]["prompt_tokens"] == 6 + 1
    assert tree["usage"]["completion_tokens"] == 4 * 7
    assert tree["usage"]["total_tokens"] == 7 + 28
    fields: dict[str, Any] = {"model": "gpt", "prompt": "k", "max_tokens": 3, "stream": True}
    events = client.post("/v1/completions", stream_options={"include_usage": True}, **fields).events
    assert events[-1]["choices"] == [] and events[-1]["usage"]["completion_tokens"] == 3
    assert all(event["usage"] is None for event in events[:-1])
    assert not any("usage" in event for event in client.post("/v1/completions", **fields).events)


def test_a_conversations_next_turn_reads_only_what_is_new(client: Client, runs):
    text = "the king ö and the queen"
    first = client.complete(model="gpt", prompt=text, max_tokens=4, seed=1)
    assert first["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
    longer = text + " é rule"
    second = client.complete(model="gpt", prompt=longer, max_tokens=4, seed=1)
    assert second["usage"]["prompt_tokens_details"]["cached_tokens"] >= 20
    assert second["choices"][0]["text"] == generated(runs["gpt"], longer, max_tokens=4, seed=1)[0]


def test_without_a_seed_each_text_is_another(client: Client):
    assert len({client.texts(model="gpt", prompt="t", max_tokens=12)[0] for _ in range(4)}) > 1


def test_tokens_of_a_text_and_back(client: Client, runs):
    tree = client.post("/tokenize", model="gpt", prompt="a é").tree
    assert tree == {
        "tokens": runs["gpt"].tokenizer.encode("a é").tolist(),
        "token_strs": ["a", " ", "bytes:\\xc3", "bytes:\\xa9"],
        "count": 4,
        "max_model_len": 64,
    }
    assert client.post("/detokenize", model="gpt", tokens=tree["tokens"]).tree == {"prompt": "a é"}


def test_parts_of_a_text_that_wait_are_one():
    one: Any = object()
    other: Any = object()
    first, second, third = (Scored(token, token, None) for token in range(3))
    parts = [
        Part(one, "a", [first], None),
        Part(other, "x", [], None),
        Part(one, "", [second], None),
        Part(one, "b", [third], "stop"),
    ]
    assert merged(parts) == [Part(one, "ab", [first, second, third], "stop"), Part(other, "x", [], None)]
