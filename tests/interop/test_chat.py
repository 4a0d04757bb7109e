"""Imported runs behind the server: conversations by the folder's template, prompts with what the folder puts first."""

import dataclasses

import numpy as np
import pytest

import jaxlm
from jaxlm.interop.importing import import_folder
from tests.interop import families
from tests.server.running import serving

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<{{ message.role }}>{{ message.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
TALK = [{"role": "user", "content": "the king?"}]


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """The tokenizer of transformers, the run and a client of its server."""
    place = tmp_path_factory.mktemp("chat")
    families.saved(place / "folder", "llama3", "llama3")
    (place / "folder" / "chat_template.jinja").write_text(TEMPLATE)
    theirs = families.transformers.AutoTokenizer.from_pretrained(place / "folder")
    end = theirs.convert_tokens_to_ids("<|end|>")
    families.edit(place / "folder" / "generation_config.json", eos_token_id=[theirs.eos_token_id, end], bos_token_id=0)
    import_folder(place / "folder", place / "run")
    run = jaxlm.load_run(place / "run")
    with serving(("imported", run)) as client:
        yield theirs, run, client


def test_a_conversation_has_the_tokens_that_transformers_gives_it(imported):
    theirs, run, client = imported
    ids = theirs.apply_chat_template(TALK, add_generation_prompt=True, return_dict=False)
    answer = client.post("/v1/chat/completions", messages=TALK, max_tokens=3, seed=0).tree
    assert answer["usage"]["prompt_tokens"] == len(ids)
    assert client.state.runs["imported"].conversation(TALK, 3).tokens == ids
    assert ids[0] == run.tokenizer.bos and theirs.eos_token_id in ids


def test_an_answer_ends_at_any_of_the_models_ends(imported):
    """A model whose most likely token after the prompt is the second of its ends says nothing."""
    _, run, client = imported
    prompt = client.state.runs["imported"].conversation(TALK, 3).tokens
    end = run.tokenizer.end_tokens[1]
    assert end != run.tokenizer.eos
    out_VD = np.zeros_like(run.params["out"])
    out_VD[end] = 1000.0
    for sign in (1, -1):
        params = {**run.params, "out": sign * out_VD}
        if run.model.apply(params, np.array([prompt]))[0, -1, end] > 0:
            break
    with serving(("silent", dataclasses.replace(run, params=params))) as silent:
        answer = silent.post("/v1/chat/completions", messages=TALK, max_tokens=9, temperature=0).tree
    assert answer["usage"]["completion_tokens"] == 1
    assert (answer["choices"][0]["message"]["content"], answer["choices"][0]["finish_reason"]) == ("", "stop")


def test_a_prompt_begins_as_the_folders_texts_do_and_echo_has_the_text_alone(imported):
    theirs, run, client = imported
    choice = client.complete(prompt="the king", echo=True, logprobs=0, max_tokens=0)["choices"][0]
    ids = theirs("the king").input_ids
    assert ids[0] == run.tokenizer.bos
    assert "".join(choice["logprobs"]["tokens"]) == choice["text"] == "the king"
    logits_BTV = np.asarray(run.model.apply(run.params, np.array([ids])), np.float64)
    log_p = logits_BTV[0] - np.log(np.exp(logits_BTV[0]).sum(axis=1, keepdims=True))
    want = [log_p[i, token] for i, token in enumerate(ids[1:])]
    assert choice["logprobs"]["token_logprobs"] == pytest.approx(want, abs=1e-4)
