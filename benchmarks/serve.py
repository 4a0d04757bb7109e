"""Benchmark the server on loopback against transformers' generate with naive batching.

    python benchmarks/serve.py RUN [--prompt TEXT] [--tokens 64] [--clients 1 8 64] [--seconds 10] [--no-peer]
    python benchmarks/serve.py RUN --requests 10000 --clients 64

Each client asks again as soon as it is answered, for texts that it reads as they come (extras server and bench). Every
answer is compared with what `jaxlm.generate` gives for its seed. The peer is a GPT-2 of the run's layers, width, heads
and vocabulary with random weights, behind the same HTTP stack: requests that wait are one batch, which is drawn to its
end before the next one begins; it has the same number of tokens for each answer. With --requests the server's memory is
printed as they are answered.
"""

import argparse
import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax

import jaxlm

SEEDS = 64
"""Texts that are asked for, each with a seed of its own."""


class Sample(NamedTuple):
    """One answer, in seconds of the clock."""

    client: int
    began: float
    parts: list[float]
    """When each part came."""
    tokens: int


def main() -> None:
    """Print a line for each number of clients, then the peer's."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("--prompt", default="")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--requests", type=int)
    parser.add_argument("--peer", action=argparse.BooleanOptionalAction, default=True)
    args = parser.parse_args()
    run = jaxlm.load_run(args.run)
    texts = expected(run, args.prompt, args.tokens)
    counts = [len(run.tokenizer.encode(text)) for text in texts]
    print(f"{args.run}: answers of {statistics.mean(counts):.1f} tokens on average", flush=True)
    with served([sys.executable, "-m", "jaxlm.server", args.run, "--port", "0", "--batch", "64"]) as (port, pid):
        if args.requests:
            flat(args, port, pid, texts)
            return
        ours = measured(args, port, texts)
    if args.peer:
        settings = run.config.model
        shape = {name: getattr(settings, name) for name in ("n_layers", "n_heads", "d_model")}
        shape |= {"vocab": run.tokenizer.vocab_size, "context": run.model.max_length or 1024}
        script = Path(__file__).with_name("serve_peer.py")
        length = {"prompt": max(1, len(run.tokenizer.encode(args.prompt))), "tokens": round(statistics.mean(counts))}
        with served([sys.executable, str(script), json.dumps(shape | length)]) as (port, _):
            theirs = measured(args, port, None, name="transformers")
        for clients in args.clients:
            print(f"{clients:3} clients: {ours[clients] / theirs[clients]:.1f} times the peer's tokens/s")


def expected(run: Any, prompt: str, tokens: int) -> list[str]:
    """The text of each seed, each drawn alone."""
    texts = []
    for seed in range(SEEDS):
        (text,) = jaxlm.generate(run, prompt=prompt, max_tokens=tokens, key=jax.random.key(seed))
        texts.append(text.removeprefix(prompt))
    return texts


@contextlib.contextmanager
def served(command: list[str]) -> Iterator[tuple[int, int]]:
    """The port and process number of a server that says "serving ... http://HOST:PORT" when it is ready."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        line = ""
        while not line.startswith("serving"):
            line = process.stdout.readline()
            assert line, f"{command} ended"
        yield int(line.rpartition(":")[2]), process.pid
    finally:
        process.terminate()
        process.wait()


def measured(args: argparse.Namespace, port: int, texts: list[str] | None, name: str = "jaxlm") -> dict[int, float]:
    """Tokens a second by the number of clients; prints a line for each."""
    rates = {}
    for clients in args.clients:
        asyncio.run(load(args, port, clients, texts, seconds=min(2.0, args.seconds)))
        began = time.perf_counter()
        samples = asyncio.run(load(args, port, clients, texts, seconds=args.seconds))
        rates[clients] = report(name, clients, samples, time.perf_counter() - began)
    one = rates.get(1)
    if one:
        print(", ".join(f"{n} clients {rate / one:.1f} times one" for n, rate in rates.items() if n > 1), flush=True)
    return rates


def report(name: str, clients: int, samples: list[Sample], seconds: float) -> float:
    """Print a line; returns tokens a second."""
    rate = sum(sample.tokens for sample in samples) / seconds
    first = [1e3 * (sample.parts[0] - sample.began) for sample in samples]
    gaps = [1e3 * (b - a) for sample in samples for a, b in zip(sample.parts, sample.parts[1:], strict=False)]
    of_client = [sum(sample.tokens for sample in samples if sample.client == one) for one in range(clients)]
    fairness = sum(of_client) ** 2 / (clients * sum(tokens**2 for tokens in of_client))
    between = f"between tokens p50 {at(gaps, 50):.2f}, p99 {at(gaps, 99):.2f} ms, " if gaps else ""
    print(
        f"{name:12} {clients:3} clients: {rate:9,.0f} tokens/s, {len(samples) / seconds:7,.1f} requests/s, "
        f"first token p50 {at(first, 50):.1f}, p99 {at(first, 99):.1f} ms, {between}fairness {fairness:.3f}",
        flush=True,
    )
    return rate


def at(values: list[float], percent: int) -> float:
    """A percentile."""
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]


def flat(args: argparse.Namespace, port: int, pid: int, texts: list[str]) -> None:
    """Print the server's memory after each tenth of the requests."""
    clients, part = args.clients[-1], args.requests // 10
    for number in range(10):
        samples = asyncio.run(load(args, port, clients, texts, requests=part))
        status = Path(f"/proc/{pid}/status").read_text()
        resident = int(status.partition("VmRSS:")[2].split()[0]) / 1024
        print(f"{(number + 1) * part:7,} requests: {resident:,.0f} MB, {len(samples):,} answered rightly", flush=True)


async def load(
    args: argparse.Namespace,
    port: int,
    clients: int,
    texts: list[str] | None,
    *,
    seconds: float = 1e9,
    requests: int | None = None,
) -> list[Sample]:
    """What some clients get that ask for so long, or so many times together."""
    samples: list[Sample] = []
    until, left = time.perf_counter() + seconds, iter(range(10**9 if requests is None else requests))

    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.perf_counter() < until and (turn := next(left, None)) is not None:
            seed = turn % SEEDS
            sample, text = await ask(reader, writer, args, number, seed)
            assert texts is None or text == texts[seed], f"seed {seed}: {text!r} in place of {texts[seed]!r}"
            samples.append(sample)
        writer.close()

    await asyncio.gather(*(client(number) for number in range(clients)))
    return samples


async def ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, args: argparse.Namespace, client: int, seed: int
) -> tuple[Sample, str]:
    """One request on an open connection: when its parts came, and the text."""
    fields = {"prompt": args.prompt, "max_tokens": args.tokens, "seed": seed, "stream": True}
    body = json.dumps(fields | {"stream_options": {"include_usage": True}}).encode()
    began = time.perf_counter()
    head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: "
    writer.write(f"{head}{len(body)}\r\n\r\n".encode() + body)
    status = await reader.readuntil(b"\r\n\r\n")
    assert status.startswith(b"HTTP/1.1 200"), status
    text, tokens = "", 0
    parts: list[float] = []
    while size := int((await reader.readuntil(b"\r\n")).strip(), 16):
        chunk = await reader.readexactly(size + 2)
        now = time.perf_counter()
        for event in chunk.split(b"\n\n"):
            if not event.startswith(b"data: {"):
                continue
            tree = json.loads(event[6:])
            for choice in tree["choices"]:
                text += choice["text"]
                if choice["text"] or not parts:
                    parts.append(now)
            if tree.get("usage"):
                tokens = tree["usage"]["completion_tokens"]
    await reader.readuntil(b"\r\n")
    return Sample(client, began, parts, tokens), text


if __name__ == "__main__":
    main()
