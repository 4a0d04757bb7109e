"""Runs in memory, and one server of all of them that the tests of a module share."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import pytest

import jaxlm
from jaxlm.data import corpus
from tests.conftest import NAMES, opened
from tests.server.running import Client, serving

TALK = "\n\n".join(["ask: one?\ntell: 1 is one.\nask: é?\ntell: no ü."] * 20)
VERSES = "the king ö and the queen é rule the land 日本 near the water. " * 8


def livelier(run: jaxlm.Run) -> jaxlm.Run:
    """A run whose parameters tell contexts apart: larger than at the start of training."""
    return dataclasses.replace(run, params=jax.tree.map(lambda x: 4 * x, run.params))


def _small(context: int) -> Any:
    return jaxlm.GptConfig(context=context, n_layers=1, n_heads=2, d_model=16)


def made() -> dict[str, jaxlm.Run]:
    """A run of each kind of text, in memory."""
    lines = jaxlm.DataConfig(kind="lines", example="sequence")
    stream = jaxlm.DataConfig(kind="stream", tokens=jaxlm.BytesConfig())
    talk = jaxlm.DataConfig(
        kind="dialogues", tokens=jaxlm.ReanTokensConfig(min_count=18), labels=("ask", "tell"), example="sequence"
    )
    names = corpus.from_lines("\n".join(NAMES), lines)
    verses, dialogues = corpus.from_stream(VERSES, stream), corpus.from_dialogues(TALK, talk)
    return {
        "names": livelier(opened(_small(16), lines, names)),
        "bigram": opened(jaxlm.CountsConfig(order=2), lines, names),
        "verses": opened(jaxlm.CountsConfig(order=4, add_k=0.01), stream, verses),
        "gpt": livelier(opened(_small(64), stream, verses, context=64)),
        "talk": opened(jaxlm.CountsConfig(order=6, add_k=0.0), talk, dialogues),
    }


@pytest.fixture(scope="session")
def runs(caches: Any) -> dict[str, jaxlm.Run]:
    """Runs by their names."""
    return made()


@pytest.fixture(scope="package")
def client(runs: dict[str, jaxlm.Run]) -> Iterator[Client]:
    """A client of a server of all runs, which must not live on while other tests change what the time is."""
    with serving(*runs.items()) as client:
        yield client
