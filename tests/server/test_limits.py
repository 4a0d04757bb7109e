"""What may be asked for, by whom, and how often: each refusal has its status and OpenAI's form of an error."""

import concurrent.futures
import http.client
import json
import socket
import time

import pytest

from jaxlm.server import guards
from tests.server.running import Client, serving, wait_until

LONG = {"model": "gpt", "prompt": "k", "max_tokens": 4000, "stream": True}


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"temperature": -1}, "temperature", "wants a number >= 0, got -1"),
        ({"temperature": "hot"}, "temperature", "wants a number, got a string"),
        ({"temperature": True}, "temperature", "wants a number, got true or false"),
        ({"temperature": float("nan")}, "temperature", "wants a number"),
        ({"top_p": 1.5}, "top_p", "above 0 and at most 1"),
        ({"min_p": 2}, "min_p", "from 0 to 1"),
        ({"top_k": 1.5}, "top_k", "a whole number"),
        ({"repetition_penalty": 0}, "repetition_penalty", "> 0"),
        ({"n": 0}, "n", "from 1 to 128"),
        ({"max_tokens": 4097}, "max_tokens", "from 0 to 4096"),
        ({"max_tokens": 0}, "max_tokens", "at least 1 without echo"),
        ({"logprobs": 21}, "logprobs", "from 0 to 20"),
        ({"stop": 3}, "stop", "a string or a list of strings"),
        ({"stop": ["x"] * 17}, "stop", "at most 16"),
        ({"stream": "yes"}, "stream", "true or false"),
        ({"prompt": []}, "prompt", "not empty"),
        ({"prompt": [1, 9999]}, "prompt", "wants tokens from 0 to"),
        ({"prompt": [-1]}, "prompt", "wants tokens from 0 to"),
        ({"prompt": {}}, "prompt", "wants a string"),
        ({"prompt": "EMMA"}, "prompt", "is not in this tokenizer"),
        ({"model": 3}, "model", "wants a string"),
        ({"best_of": 4}, "best_of", "not offered"),
        ({"logit_bias": {"5": 1}}, "logit_bias", "not offered"),
        ({"temprature": 1}, "temprature", "did you mean temperature?"),
    ],
)
def test_a_field_out_of_range_is_named(client: Client, fields, param, words):
    answer = client.post("/v1/completions", **{"model": "names", "prompt": "e"} | fields)
    assert answer.status == 400 and answer.error["param"] == param
    assert words in answer.error["message"] and answer.error["type"] == "invalid_request_error"


def test_fields_that_change_nothing_are_taken(client: Client):
    free = {"user": "me", "best_of": 1, "presence_penalty": 0, "logit_bias": None, "suffix": None, "top_k": -1}
    assert client.texts(model="names", prompt="e", seed=1, **free) == client.texts(model="names", prompt="e", seed=1)


@pytest.mark.parametrize(("body", "words"), [(b"{", "is no JSON"), (b"[1]", "JSON object"), (b"\xff", "is no JSON")])
def test_a_body_that_is_no_object_is_refused(client: Client, body, words):
    answer = client.ask("POST", "/v1/completions", body, Content_Type="application/json")
    assert answer.status == 400 and words in answer.error["message"]


def test_paths_models_and_methods_that_there_are_not(client: Client):
    for path in ("/v1/nothing", "/v1/completions/", "/../etc/passwd"):
        assert client.get(path).status == 404 and client.get(path).error["code"] == "unknown_path"
    assert client.get("/v1/completions").status == 405
    answer = client.post("/v1/completions", model="gpt-4")
    assert answer.status == 404 and answer.error["code"] == "model_not_found" and "names" in answer.error["message"]
    assert client.post("/v1/completions", prompt="e").error["param"] == "model"
    assert client.get("/v1/models/gpt-4").status == 404


def test_what_is_served_is_listed(client: Client, runs):
    models = client.get("/v1/models").tree["data"]
    assert [model["id"] for model in models] == list(runs)
    assert client.get("/v1/models/talk").tree["chats"] is True
    assert client.get("/health").tree == {"status": "ok"}


def test_other_types_than_json_are_refused_so_that_no_page_can_send_them(client: Client):
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        answer = client.ask("POST", "/v1/completions", b"{}", Content_Type=kind)
        assert answer.status == 415 and answer.error["code"] == "invalid_content_type"
    answer = client.ask("OPTIONS", "/v1/completions", Origin="http://evil.example")
    assert answer.status == 405 and "access-control-allow-origin" not in answer.headers


def test_other_names_of_the_host_are_refused(client: Client, runs):
    for name in ("evil.example", "evil.example:8000", "127.0.0.1.evil.example", ""):
        assert client.get("/v1/models", Host=name).error["code"] == "invalid_host"
    for name in ("localhost", "LOCALHOST:1", "127.0.0.1", "[::1]:8000"):
        assert client.get("/v1/models", Host=name).status == 200
    with serving(("bigram", runs["bigram"]), hosts=("mine.example",)) as other:
        assert other.get("/v1/models", Host="mine.example").status == 200


def test_a_body_that_is_too_large_is_refused_whether_it_says_so_or_not(runs):
    with serving(("bigram", runs["bigram"]), body=1000) as client:
        assert client.texts(prompt="e", seed=1)
        answer = client.post("/v1/completions", prompt="e" * 1000)
        assert answer.status == 413 and answer.error["code"] == "body_too_large"
        connection = client.connect()
        parts = (b"x" * 400 for _ in range(5))
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/v1/completions", parts, headers, encode_chunked=True)
        assert connection.getresponse().status == 413
        connection.close()


def test_a_body_that_does_not_come_is_not_waited_for(runs, monkeypatch):
    monkeypatch.setattr(guards, "BODY_SECONDS", 0.2)
    with serving(("bigram", runs["bigram"])) as client, socket.create_connection(("127.0.0.1", client.port)) as slow:
        slow.sendall(
            b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 100\r\n\r\n{"
        )
        assert slow.recv(1000).startswith(b"HTTP/1.1 408")
        wait_until(lambda: not client.state.clients)


def test_keys(runs):
    keys = ("a-key-of-one-client", "another-key-of-two")
    with serving(("bigram", runs["bigram"]), keys=keys) as client:
        for path in ("/", "/health"):
            assert client.get(path).status == 200
        for given in ("", "Bearer ", "Bearer nothing", "Basic a-key-of-one-client", "Bearer a-key-of-one-clienT"):
            for path in ("/v1/models", "/metrics"):
                answer = client.get(path, Authorization=given)
                assert answer.status == 401 and answer.error["type"] == "authentication_error"
                assert answer.headers["www-authenticate"] == "Bearer"
        for key in keys:
            assert client.get("/v1/models", Authorization=f"Bearer {key}").status == 200


def test_prompts_and_answers_have_a_longest_length(runs):
    with serving(*((name, runs[name]) for name in ("gpt", "verses", "bigram")), prompt_tokens=70, context=40) as client:
        for name in ("gpt", "verses", "bigram"):
            answer = client.post("/v1/completions", model=name, prompt="e" * 71)
            assert answer.status == 400 and "takes 70 (--prompt-tokens)" in answer.error["message"]
        answer = client.post("/v1/completions", model="gpt", prompt="e" * 30, max_tokens=12)
        assert answer.error["code"] == "context_length_exceeded" and "no room in 40" in answer.error["message"]
        assert len(client.texts(model="gpt", prompt="e" * 30, max_tokens=11, temperature=0)[0].encode()) >= 11
        assert client.texts(model="verses", prompt="e" * 70, max_tokens=100), "of counts any length has room"
    with serving(("gpt", runs["gpt"])) as client:
        answer = client.post("/v1/completions", prompt="e" * 65, echo=True, logprobs=0)
        assert answer.error["code"] == "context_length_exceeded" and "sees 64" in answer.error["message"]
        assert client.texts(prompt="e" * 65, max_tokens=3), "what is not scored is seen from its end"


def test_a_client_that_goes_away_frees_its_place(runs):
    """One place: the next request is answered only if the first has left it."""
    with serving(("gpt", runs["gpt"]), batch=1) as client:
        batcher = client.state.runs["gpt"].batcher
        for fields in (LONG, LONG | {"stream": False}):
            connection = client.connect()
            connection.request("POST", "/v1/completions", json.dumps(fields), {"Content-Type": "application/json"})
            if fields["stream"]:
                connection.getresponse().read(100)
            else:
                wait_until(lambda: batcher.active == 1)
            connection.sock.shutdown(socket.SHUT_RDWR)
            connection.close()
            assert client.texts(prompt="k", max_tokens=3, seed=0)
            wait_until(lambda: not client.state.texts["gpt"] and not client.state.jobs)
        made = client.get("/metrics").body.decode()
        tokens = int(made.partition('jaxlm_generated_tokens_total{model="gpt"} ')[2].split()[0])
        assert tokens < 4000, "the answers were not drawn to their ends"


def test_a_full_queue_and_too_many_requests_of_a_client(runs):
    with serving(("gpt", runs["gpt"]), batch=1, queue=1, concurrency=3) as client:
        open_ones = [client.begin("/v1/completions", **LONG) for _ in range(2)]
        answer = client.post("/v1/completions", prompt="k")
        assert answer.status == 503 and answer.error["code"] == "queue_full" and answer.headers["retry-after"]
        waiting = client.connect()
        waiting.request("POST", "/v1/completions", None, {"Content-Type": "application/json", "Content-Length": "9"})
        wait_until(lambda: sum(client.state.clients.values()) == 3)
        answer = client.get("/v1/models")
        assert answer.status == 429 and answer.error["type"] == "rate_limit_error"
        for connection in (waiting, *(connection for connection, _ in open_ones)):
            connection.close()
        for _, response in open_ones:
            response.close()
        wait_until(lambda: not client.state.clients)
        assert client.texts(prompt="k", seed=0)


def test_a_request_that_takes_too_long_is_given_up(runs):
    with serving(("gpt", runs["gpt"]), timeout=0.5) as client:
        client.texts(prompt="k", seed=0)  # compiles
        answer = client.post("/v1/completions", **LONG | {"stream": False})
        assert answer.status == 504 and answer.error["code"] == "timeout"
        *_, last = client.post("/v1/completions", **LONG).events
        assert last["error"]["code"] == "timeout"
        wait_until(lambda: not client.state.texts["gpt"])


def test_a_model_that_fails_fails_its_requests_alone(runs, monkeypatch, capsys):
    with serving(("gpt", runs["gpt"]), ("bigram", runs["bigram"])) as client:
        batcher = client.state.runs["gpt"].batcher
        step, calls = batcher.step, []

        def failing():
            calls.append(1)
            if len(calls) == 3:
                raise RuntimeError("the device is gone")
            return step()

        monkeypatch.setattr(batcher, "step", failing)
        answer = client.post("/v1/completions", model="gpt", prompt="k", max_tokens=9)
        assert answer.status == 500 and answer.error["type"] == "server_error"
        assert client.texts(model="gpt", prompt="k", seed=0, max_tokens=9)
        assert client.texts(model="bigram", prompt="e", seed=0)
    assert "the device is gone" in capsys.readouterr().err


def test_requests_in_flight_end_well_and_new_ones_are_refused_at_the_end(runs):
    with serving(("gpt", runs["gpt"]), grace=30.0) as client, concurrent.futures.ThreadPoolExecutor(2) as pool:
        fields = {"model": "gpt", "prompt": "k", "max_tokens": 300, "seed": 3}
        want = client.texts(**fields)
        going_on = pool.submit(client.texts, **fields)
        wait_until(lambda: bool(client.state.jobs))
        client.state.close()
        answer = client.post("/v1/completions", prompt="k")
        assert answer.status == 503 and answer.error["code"] == "shutting_down"
        assert client.get("/health").status == 503
        client.server.should_exit = True
        assert going_on.result() == want


def test_what_is_left_after_the_grace_period_fails(runs):
    with serving(("gpt", runs["gpt"]), grace=0.2) as client:
        connection, response = client.begin("/v1/completions", **LONG)
        response.readline()
        began = time.monotonic()
        client.server.should_exit = True
        rest = response.read().decode()
        assert '"code":"shutting_down"' in rest and rest.endswith("data: [DONE]\n\n")
        assert time.monotonic() - began < 20
        connection.close()


def test_metrics_count_requests_and_tokens(runs):
    with serving(("bigram", runs["bigram"])) as client:
        client.texts(prompt=["em", "e"], max_tokens=4, seed=0)
        client.post("/v1/completions", prompt=3)
        client.get("/no/such/path")
        text = client.get("/metrics").body.decode()
        lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        assert lines['jaxlm_requests_total{path="/v1/completions",status="200"}'] == "1"
        assert lines['jaxlm_requests_total{path="/v1/completions",status="400"}'] == "1"
        assert lines['jaxlm_prompt_tokens_total{model="bigram"}'] == "3"
        assert 2 <= int(lines['jaxlm_generated_tokens_total{model="bigram"}']) <= 8
        assert lines['jaxlm_first_token_seconds_count{model="bigram"}'] == "1"
        assert lines['jaxlm_first_token_seconds_bucket{model="bigram",le="+Inf"}'] == "1"
        assert lines['jaxlm_texts{model="bigram"}'] == "0"
        assert "no/such" not in text


def test_the_page_is_one_file_that_loads_nothing_else(client: Client):
    answer = client.get("/")
    text = answer.body.decode()
    assert answer.status == 200 and answer.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "http://" not in text and "https://" not in text and " src=" not in text and "@import" not in text


def test_pipelined_rubbish_does_no_harm(client: Client):
    with socket.create_connection(("127.0.0.1", client.port)) as raw:
        raw.sendall(b"\x00\xff rubbish\r\n\r\n")
        assert raw.recv(1000).startswith(b"HTTP/1.1 400")
    with pytest.raises((http.client.HTTPException, OSError)):
        raw.recv(1)
    assert client.get("/health").status == 200
