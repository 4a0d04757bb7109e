"""Texts of a trained run: prompts and stops in, text out, whole or in pieces as it comes."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import jax
import numpy as np

from jaxlm.config import check
from jaxlm.config.run import DRAFT_TOKENS, MOST_SAMPLES
from jaxlm.errors import UserError
from jaxlm.inference import engine, speculative
from jaxlm.inference.sampling import Strategy
from jaxlm.inference.speculative import Draft
from jaxlm.inference.speculative_loop import Tally
from jaxlm.inference.texts import TextStream, cut, text_of
from jaxlm.models.base import Params, PredictsVectors
from jaxlm.models.check import check_decodes
from jaxlm.ops import prng
from jaxlm.runs.loading import Run

MOST_TOKENS = 2**28
"""In one call of `generate`: 1 GB while they are drawn."""


def generate(
    run: Run,
    *,
    n: int = 1,
    prompt: str | Sequence[str] = "",
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    repetition_penalty: float = 1.0,
    max_tokens: int = 200,
    stop: str = "",
    key: jax.Array,
    params: Params | None = None,
    draft: Run | None = None,
    draft_tokens: int = DRAFT_TOKENS,
    report: Callable[[Tally], None] | None = None,
) -> list[str]:
    """N texts for each prompt, prompts included, without their ends: a line's, dialogue's or document's end, `stop`.

    A text is decided by the key, its place among the texts, its prompt and the settings, not by those beside it.
    `params` in place of the run's own (untrained ones, say). A run `draft` with the same tokenizer proposes so many
    tokens for each pass: other texts of the same key, from the same distribution, `report` gets the counts. Raises
    UserError for a setting out of range, a character that the tokenizer does not have, and a draft with another one.
    """
    check.between("n", n, 1, MOST_SAMPLES)
    check.between("max_tokens", max_tokens, 1, MOST_SAMPLES)
    strategy = Strategy(temperature, top_k, top_p, min_p, repetition_penalty)
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    check.between("n times max_tokens", n * len(prompts) * max_tokens, 0, MOST_TOKENS)
    starts = [text for text in prompts for _ in range(n)]
    rows = [tokens for tokens in [prompt_tokens(run, text) for text in prompts] for _ in range(n)]
    if not rows:
        return []
    places, stops = range(len(rows)), stops_of(run, stop)
    made: list[list[int]] = [[] for _ in rows]
    new_of = decode(
        run, rows, places, strategy, max_tokens, key, stop=stops[0], params=params, draft=draft,
        draft_tokens=draft_tokens, report=report,
    )  # fmt: skip
    for new in new_of:
        for row, tokens in zip(made, new, strict=True):
            row += tokens
    return [text + cut(text_of(run, tokens), stops) for text, tokens in zip(starts, made, strict=True)]


def stream(
    run: Run,
    *,
    prompt: str = "",
    place: int = 0,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    repetition_penalty: float = 1.0,
    max_tokens: int = 200,
    stop: str = "",
    key: jax.Array,
    params: Params | None = None,
    draft: Run | None = None,
    draft_tokens: int = DRAFT_TOKENS,
    every: int = 1,
) -> Iterator[str]:
    """Pieces of one text after its prompt, as they come: joined, what `generate` gives at this place for the prompt.

    A piece is what `every` tokens add, without characters that are not complete and without what may become `stop`;
    with a draft, what one pass adds where that is more.
    Raises UserError as `generate` does, when the first piece is asked for.
    """
    check.between("max_tokens", max_tokens, 1, MOST_SAMPLES)
    check.between("place", place, 0, check.MOST)
    check.between("every", every, 1, MOST_SAMPLES)
    strategy = Strategy(temperature, top_k, top_p, min_p, repetition_penalty)
    stops, rows = stops_of(run, stop), [prompt_tokens(run, prompt)]
    new = decode(
        run, rows, [place], strategy, max_tokens, key, stop=stops[0], params=params, draft=draft,
        draft_tokens=draft_tokens, every=every,
    )  # fmt: skip
    yield from pieces(run, (tokens for (tokens,) in new), stops)


def decode(
    run: Run,
    rows: Sequence[Sequence[int]],
    places: Sequence[int],
    strategy: Strategy,
    max_tokens: int,
    key: jax.Array,
    *,
    stop: str = "",
    ends_turn: bool = False,
    params: Params | None = None,
    draft: Run | None = None,
    draft_tokens: int = DRAFT_TOKENS,
    report: Callable[[Tally], None] | None = None,
    every: int | None = None,
) -> Iterator[list[list[int]]]:
    """New tokens of each row until its text ends; ends_turn: EOS ends a dialogue's text too.

    By `engine.decode`, with a draft by `speculative.decode`.
    """
    check_decodes(run.config.model, run.model)
    end = end_of(run, ends_turn=ends_turn)
    by = engine.decode
    if draft is not None:
        check_draft(run, draft)
        proposes = Draft(draft.model, draft.params, draft_tokens)
        by = partial(speculative.decode, draft=proposes, report=report)
    return by(
        run.model,
        run.params if params is None else params,
        rows,
        settings=strategy.rows(len(rows)),
        key=prng.ours(key),
        place_B=np.asarray(places, np.int32),
        limit_B=np.full(len(rows), max_tokens, np.int32),
        allowed_V=drawn_tokens(run),
        eos=run.tokenizer.eos,
        end=end,
        stop=_named_tokens(run, "stop", stop),
        goes_on=goes_on(run),
        every=every,
    )


def check_draft(run: Run, draft: Run) -> None:
    """Raise UserError if a run cannot propose tokens to another: it has other tokens, or nothing is sampled from it."""
    check_decodes(draft.config.model, draft.model)
    if draft.tokenizer != run.tokenizer:
        sizes = f"{draft.tokenizer.vocab_size:,} and {run.tokenizer.vocab_size:,} tokens"
        raise UserError(
            f"draft {str(draft.path)!r} wants the tokenizer of run {str(run.path)!r}, got another one ({sizes}): "
            "train the draft with the same data.tokens, data.kind and text"
        )


def pieces(
    run: Run, new: Iterator[Sequence[int]], stops: Sequence[str], made: list[int] | None = None
) -> Iterator[str]:
    """Text that tokens add, piece by piece, up to the first of some stops. `made` grows by the tokens that are read."""
    text, made = TextStream(run, stops), [] if made is None else made
    for tokens in new:
        made += tokens
        piece = ""
        for token in tokens:
            piece += "" if text.ended else text.push(token)
        if piece:
            yield piece
        if text.ended:
            break
    if piece := text.finish():
        yield piece


def by_vector(run: Run) -> Run:
    """A REAN run that takes, in place of a likely token, the one whose vector is nearest to the predicted one.

    Where no vector has a cosine above 0.01 it takes EOS; of a model that has no vector for EOS the text ends there with
    "[NIV]". Raises UserError for a run that predicts no vectors.
    """
    if not isinstance(run.model, PredictsVectors):
        raise UserError(f"--by-vector wants a REAN run, got {type(run.config.model).__name__}")
    return dataclasses.replace(run, model=run.model.nearest())


def prompt_tokens(run: Run, text: str) -> list[int]:
    """Tokens that a prompt's text is continued from, at least one. Raises UserError naming the prompt."""
    tokens = _named_tokens(run, "prompt", text)
    if run.config.data.kind != "stream":
        return [run.tokenizer.bos, *tokens]
    return [*run.tokenizer.prefix, *tokens] or [run.tokenizer.start]


def tokens_of(run: Run, text: str) -> list[int]:
    """Tokens of a part of a text: line ends within a dialogue are EOS."""
    if run.config.data.kind == "dialogues":
        return run.tokenizer.encode_lines(text.split("\n"))[:-1].tolist()
    return run.tokenizer.encode(text).tolist()


def end_of(run: Run, *, ends_turn: bool = False) -> int | None:
    """The token that ends a text, None if none does; ends_turn: EOS ends a dialogue's text too."""
    kind = run.config.data.kind
    return run.tokenizer.eos if kind == "lines" or run.marks_unknown or run.has_documents or ends_turn else None


def goes_on(run: Run) -> bool:
    """True if a text goes on where the model's positions end: all but lines."""
    return run.config.data.kind != "lines"


def drawn_tokens(run: Run) -> np.ndarray:
    """allowed_V: tokens that stand for text, and EOS but in running text without documents."""
    allowed_V = np.zeros(run.model.vocab_size, bool)
    allowed_V[: run.tokenizer.vocab_size] = run.tokenizer.bytes_of_token > 0
    is_open = run.config.data.kind == "stream" and not (run.marks_unknown or run.has_documents)
    allowed_V[list(run.tokenizer.end_tokens)] = not is_open
    return allowed_V


def _named_tokens(run: Run, setting: str, text: str) -> list[int]:
    try:
        return tokens_of(run, text)
    except UserError as error:
        raise UserError(f"{setting} {text!r} cannot be used: {error}") from None


def stops_of(run: Run, stop: str) -> list[str]:
    """Texts that end a text, the one that the engine looks for first; "" where there is none."""
    dialogues = run.config.data.kind == "dialogues"
    return ([stop] if stop else []) + ["\n\n"] * dialogues or [""]
