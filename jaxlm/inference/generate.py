"""What a trained run is asked for: texts, and scores of texts."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import jax
import numpy as np

from jaxlm.config import check
from jaxlm.config.run import MOST_SAMPLES
from jaxlm.data.corpus import encode_text, line_hash
from jaxlm.data.dataset import Dataset
from jaxlm.devices import compilation
from jaxlm.errors import UserError
from jaxlm.inference import sampling
from jaxlm.inference.evaluation import Evaluator, Score
from jaxlm.inference.sampling import Strategy
from jaxlm.models.base import Params, PredictsVectors
from jaxlm.ops import prng
from jaxlm.runs.loading import Run
from jaxlm.tokenizers import EOS

Seen = Literal["train", "dev+test", "new"]
MOST_TOKENS = 2**28
"""In one call of `generate`: 1 GB while they are drawn."""


@dataclasses.dataclass(frozen=True)
class TextScore:
    """A text's score as a whole and token by token."""

    total: Score
    tokens: list[str]
    """Each predicted token, spelled; the boundary as '.'."""
    nats: np.ndarray
    """-log p of each, infinite where p = 0."""

    @property
    def nats_per_token(self) -> float | None:
        """The mean; None where an event had probability 0."""
        return self.total.nats_per_token


def generate(
    run: Run,
    *,
    n: int = 1,
    prompt: str | Sequence[str] = "",
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    max_tokens: int = 200,
    stop: str = "",
    key: jax.Array,
    params: Params | None = None,
) -> list[str]:
    """N texts for each prompt, prompts included, without what ends them (the end of the line or dialogue, or `stop`).

    A text is decided by the key, its place among the texts, its prompt and the settings, not by those beside it.
    `params` in place of the run's own (untrained ones, say). Raises UserError for a setting out of range or a
    character that the tokenizer does not have.
    """
    check.between("n", n, 1, MOST_SAMPLES)
    check.between("max_tokens", max_tokens, 1, MOST_SAMPLES)
    strategy, key = Strategy(temperature, top_k, top_p, min_p), prng.ours(key)
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    check.between("n times max_tokens", n * len(prompts) * max_tokens, 0, MOST_TOKENS)
    starts = [text for text in prompts for _ in range(n)]
    rows = [tokens for tokens in [_prompt_tokens(run, text) for text in prompts] for _ in range(n)]
    params = run.params if params is None else params
    dialogues = run.config.data.kind == "dialogues"
    stop = stop or ("\n\n" if dialogues else "")
    new = _generate(run, params, rows, key, strategy, max_tokens, stop) if rows else []
    texts = [text + text_of(run, tokens) for text, tokens in zip(starts, new, strict=True)]
    texts = [_cut(text, stop, len(start)) for text, start in zip(texts, starts, strict=True)]
    return [_cut(text, "\n\n", len(start)) for text, start in zip(texts, starts, strict=True)] if dialogues else texts


def text_of(run: Run, tokens: Sequence[int]) -> str:
    """The text of a run's tokens; the boundaries of a dialogue are line ends, those that mark the unknown "[NIV]"."""
    if run.marks_unknown:
        known = [token for token in tokens if token != EOS]
        return run.tokenizer.decode(known) + "[NIV]" * (len(known) < len(tokens))
    if run.config.data.kind != "dialogues":
        return run.tokenizer.decode(tokens)
    turns: list[list[int]] = [[]]
    for token in tokens:
        if token == EOS:
            turns.append([])
        else:
            turns[-1].append(token)
    return "\n".join(map(run.tokenizer.decode, turns))


def _generate(
    run: Run, params: Params, rows: list[list[int]], key: jax.Array, strategy: Strategy, max_tokens: int, stop: str
) -> list[list[int]]:
    """What follows each row of tokens, until it ends.

    A model with max_length positions sees the last of them: lines end where the positions do, running text goes on from
    the last half of what it sees. Each row has its own limit of tokens and its own keys, so that what is beside it
    changes nothing: rows with equally many tokens left had equally many in each pass before, and their places part
    them.
    """
    lines, most = run.config.data.kind == "lines", run.model.max_length
    end, stop_S = EOS if lines or run.marks_unknown else None, tuple(_named_tokens(run, "stop", stop))
    generate_rows = sampling.compiled(**compilation.sampling_options(params, len(rows)))
    made: list[list[int]] = [[] for _ in rows]
    seen = rows if most is None else [row[-most:] for row in rows]
    left_B, key_of_left = np.full(len(rows), max_tokens, np.int32), {max_tokens: key}
    room = max_tokens if most is None else min(max_tokens, most + 1 - min(map(len, seen)))
    while True:
        length_B = np.array([len(row) for row in seen], np.int32)
        width = 1 << int(length_B.max() - 1).bit_length()
        limit_B = left_B if most is None else np.minimum(left_B, most + 1 - length_B)
        prompt_BP = np.zeros((len(rows), width if most is None else min(width, most)), np.int32)
        for prompt_P, tokens in zip(prompt_BP, seen, strict=True):
            prompt_P[: len(tokens)] = tokens
        left_K = np.unique(left_B[left_B > 0])
        new_BN, count_B = generate_rows(
            run.model.init_cache,
            run.model.extend,
            params,
            prompt_BP,
            length_B,
            limit_B,
            tuple(key_of_left[left] for left in left_K.tolist()),
            np.searchsorted(left_K, left_B).astype(np.int32),
            strategy=strategy,
            max_tokens=room,
            end=end,
            allowed_V=drawn_tokens(run),
            stop=stop_S,
        )
        for row, new, count in zip(made, np.asarray(new_BN).tolist(), np.asarray(count_B).tolist(), strict=True):
            row += new[:count]
        ended_B = np.array([_has_ended(row, end, stop_S) for row in made])
        before_B, left_B = left_B, np.where(ended_B, 0, left_B - limit_B)
        if lines or most is None or not left_B.any():
            return made
        seen = [(row + new)[-max(1, most // 2) :] for row, new in zip(rows, made, strict=True)]
        # the last pass gets as much as those before it, and their program with it
        room = most + 1 - min(len(tokens) for tokens, left in zip(seen, left_B, strict=True) if left)
        pairs = set(zip(before_B.tolist(), left_B.tolist(), strict=True))
        key_of_left = {left: jax.random.fold_in(key_of_left[before], left) for before, left in pairs if left}


def _has_ended(made: list[int], end: int | None, stop_S: tuple[int, ...]) -> bool:
    """Whether a row's new tokens hold the token or the tokens that end it."""
    S = len(stop_S)
    return end in made or (S > 0 and any(tuple(made[i : i + S]) == stop_S for i in range(len(made) - S + 1)))


def score(run: Run, text: str) -> TextScore:
    """How well the run's model predicts a text: lines, running text or dialogues, as the run was trained.

    Raises UserError for a character that the tokenizer does not have, and for parameters that give no number.
    """
    corpus = encode_text(text, run.tokenizer, run.config.data.kind)
    config = dataclasses.replace(run.config, batch_size=1)
    dataset = Dataset(config, corpus, context=run.model.context, max_length=run.model.max_length)
    bytes_V = run.tokenizer.bytes_of_token
    nats = Evaluator(run.model, dataset, bytes_V).per_token(run.params, dataset.rows["train"])
    if np.isnan(nats).any():
        raise UserError(f"the parameters of run {str(run.path)!r} give a loss that is not a number: train it again")
    possible = ~np.isposinf(nats)
    total = Score(
        nats=float(nats[possible].sum(dtype=np.float64)),
        tokens=len(nats),
        bytes=int(bytes_V[corpus.tokens_N].sum()),
        impossible=int((~possible).sum()),
    )
    return TextScore(total, [run.tokenizer.spell(token) for token in corpus.tokens_N.tolist()], nats)


def by_vector(run: Run) -> Run:
    """A REAN run that takes, in place of a likely token, the one whose vector is nearest to the predicted one.

    Where no vector has a cosine above 0.01 it takes the boundary; of a model that has no vector for the boundary the
    text ends there with "[NIV]". Raises UserError for a run that predicts no vectors.
    """
    if not isinstance(run.model, PredictsVectors):
        raise UserError(f"--by-vector wants a REAN run, got {type(run.config.model).__name__}")
    return dataclasses.replace(run, model=run.model.nearest())


def classify(run_seen: dict[str, np.ndarray], texts: Sequence[str]) -> list[Seen]:
    """Whether each text is a line of train, of dev or test only, or new, by the hashes in seen.npz."""
    hashes = np.array([line_hash(text) for text in texts], np.uint64)
    # sorted: NumPy's table of small integers, tried first, overflows at hashes in some releases
    train, dev, test = (np.isin(hashes, run_seen[split], kind="sort") for split in ("train", "dev", "test"))
    return ["train" if t else "dev+test" if r else "new" for t, r in zip(train, dev | test, strict=True)]


def _prompt_tokens(run: Run, text: str) -> list[int]:
    tokens = _named_tokens(run, "prompt", text)
    return tokens or [run.tokenizer.start] if run.config.data.kind == "stream" else [EOS, *tokens]


def _named_tokens(run: Run, setting: str, text: str) -> list[int]:
    try:
        return tokens_of(run, text)
    except UserError as error:
        raise UserError(f"{setting} {text!r} cannot be used: {error}") from None


def tokens_of(run: Run, text: str) -> list[int]:
    """The tokens of a part of a text: line ends within a dialogue are boundaries."""
    if run.config.data.kind == "dialogues":
        return run.tokenizer.encode_lines(text.split("\n"))[:-1].tolist()
    return run.tokenizer.encode(text).tolist()


def drawn_tokens(run: Run) -> np.ndarray:
    """allowed_V: what the tokenizer can decode; running text has no boundaries."""
    token_V = np.arange(run.model.vocab_size)
    ends = run.config.data.kind != "stream" or run.marks_unknown
    return (token_V < run.tokenizer.vocab_size) & ((token_V != EOS) | ends)


def _cut(text: str, stop: str, prompt: int) -> str:
    place = text.find(stop, prompt) if stop else -1
    return text if place < 0 else text[:place]
