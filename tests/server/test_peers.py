"""Other programs' clients against the server: OpenAI's own, and lm-evaluation-harness."""

import json
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import jaxlm
from tests.server.running import SECONDS, serving, wait_until

MESSAGES: Any = [{"role": "user", "content": "one?"}]
KEY = "a-key-for-the-peers"


@pytest.fixture(scope="module")
def openai_client(runs: dict[str, jaxlm.Run]):
    """The module openai, and a client of a server that wants a key."""
    openai = pytest.importorskip("openai", reason="wants the extra peers")
    with (
        serving(*runs.items(), keys=(KEY,)) as client,
        openai.OpenAI(base_url=f"{client.url}/v1", api_key=KEY, max_retries=0, timeout=SECONDS) as made,
    ):
        yield openai, made, client


def test_openai_completes(openai_client):
    _, client, _ = openai_client
    fields: dict[str, Any] = {"model": "gpt", "prompt": "the é", "max_tokens": 20, "seed": 3, "n": 2, "logprobs": 2}
    whole = client.completions.create(**fields)
    assert [choice.index for choice in whole.choices] == [0, 1] and whole.usage.completion_tokens == 40
    assert len(whole.choices[0].logprobs.token_logprobs) == 20
    texts = ["", ""]
    log_p: list[list[float]] = [[], []]
    for chunk in client.completions.create(**fields, stream=True, stream_options={"include_usage": True}):
        for choice in chunk.choices:
            texts[choice.index] += choice.text
            log_p[choice.index] += choice.logprobs.token_logprobs
    assert texts == [choice.text for choice in whole.choices] and chunk.usage == whole.usage
    assert log_p == [choice.logprobs.token_logprobs for choice in whole.choices]


def test_openai_chats(openai_client):
    _, client, _ = openai_client
    whole = client.chat.completions.create(model="talk", messages=MESSAGES, logprobs=True, top_logprobs=1)
    assert whole.choices[0].message.content == "1 is one." and whole.choices[0].finish_reason == "stop"
    assert [token.token for token in whole.choices[0].logprobs.content[:2]] == ["1", " "]
    stream = client.chat.completions.create(model="talk", messages=MESSAGES, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "1 is one."
    extra = client.chat.completions.create(model="talk", messages=MESSAGES, extra_body={"top_k": 1, "min_p": 0.1})
    assert extra.choices[0].message.content == "1 is one."


def test_openai_lists_and_raises_what_it_should(openai_client):
    openai, client, plain = openai_client
    assert [model.id for model in client.models.list()] == list(plain.state.runs)
    assert client.models.retrieve("talk").owned_by == "jaxlm"
    with pytest.raises(openai.NotFoundError) as found:
        client.completions.create(model="gpt-4", prompt="x")
    assert found.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError, match="temperature wants a number >= 0") as refused:
        client.completions.create(model="gpt", prompt="x", temperature=-1)
    assert refused.value.param == "temperature"
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="another").models.list()


def test_openai_that_breaks_a_stream_off_frees_the_place(openai_client):
    _, client, plain = openai_client
    stream = client.completions.create(model="gpt", prompt="k", max_tokens=4000, stream=True)
    next(iter(stream))
    stream.close()
    wait_until(lambda: not plain.state.texts["gpt"] and plain.state.runs["gpt"].batcher.is_idle)


HARNESS = """
import json, sys
import lm_eval
from lm_eval.api.task import ConfigurableTask
from lm_eval.models.openai_completions import LocalCompletionsAPI

url, documents = sys.argv[1], json.loads(sys.argv[2])
import datasets
made = lambda **options: {"test": datasets.Dataset.from_list(documents)}
settings = {"custom_dataset": made, "test_split": "test", "doc_to_text": "{{context}}", "target_delimiter": ""}
task = ConfigurableTask(config={
    **settings, "task": "names", "output_type": "multiple_choice", "doc_to_choice": "{{choices}}", "doc_to_target": 0,
    "metric_list": [{"metric": "acc"}],
})
other = ConfigurableTask(config={
    **settings, "task": "endings", "output_type": "generate_until", "doc_to_target": "x",
    "generation_kwargs": {"until": ["a"], "max_gen_toks": 6, "temperature": 0},
    "metric_list": [{"metric": "exact_match"}],
})
lm = LocalCompletionsAPI(model=sys.argv[3], base_url=url + "/v1/completions", num_concurrent=4, max_length=1000)
found = lm_eval.simple_evaluate(model=lm, tasks=[task, other], bootstrap_iters=0, log_samples=True)
print("RESULT", json.dumps({
    "scores": [sample["resps"] for sample in found["samples"]["names"]],
    "texts": [sample["resps"] for sample in found["samples"]["endings"]],
    "acc": found["results"]["names"]["acc,none"],
}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["names", "bigram"])
def test_the_harness_finds_the_likelihoods_of_score(runs, tmp_path, name):
    """Of each document the log-likelihoods of its choices after its context, and a greedy text up to an "a"."""
    pytest.importorskip("lm_eval", reason="wants the extra peers")
    documents = [
        {"context": context, "choices": choices}
        for context, choices in (("em", ["ma", "ily", "x"]), ("oli", ["via", "e"]), ("a", ["va", "mia"]))
        if all(set(context + choice) <= set(runs[name].tokenizer.words) for choice in choices)
    ]
    with serving((name, runs[name])) as client:
        env = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
        command = [sys.executable, "-c", HARNESS, client.url, json.dumps(documents), name]
        done = subprocess.run(command, env=env, text=True, capture_output=True, timeout=300, cwd=tmp_path)
        assert done.returncode == 0, done.stderr[-3000:]
        result = json.loads(done.stdout.partition("RESULT ")[2].splitlines()[0])
        right = 0
        document: Any
        for document, scores, texts in zip(documents, result["scores"], result["texts"], strict=True):
            context, wants = document["context"], []
            for choice in document["choices"]:
                nats = jaxlm.score(runs[name], context + choice).nats
                wants.append(-float(nats[len(context) : len(context + choice)].sum()))
            np.testing.assert_allclose([score[0][0] for score in scores], wants, atol=1e-4)
            right += wants.index(max(wants)) == 0
            assert texts == [client.texts(prompt=context, max_tokens=6, temperature=0, stop="a")]
        assert result["acc"] == pytest.approx(right / len(documents))
