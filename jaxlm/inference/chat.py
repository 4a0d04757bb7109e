"""A conversation with a model of dialogues: whole turns as its memory, and answers as they come."""

import dataclasses
from collections.abc import Generator, Iterator

import jax
import jax.numpy as jnp

from jaxlm.inference import sampling
from jaxlm.inference.generate import drawn_tokens
from jaxlm.inference.sampling import Strategy
from jaxlm.runs.loading import Run
from jaxlm.tokenizers import EOS

PIECES = tuple(1 << power for power in range(12, -1, -1))
"""Tokens that are read at once: a history is read in pieces of these sizes, so that few programs are compiled."""


@dataclasses.dataclass
class Chat:
    """What has been said, and how the next answer is drawn."""

    run: Run
    strategy: Strategy
    key: jax.Array
    max_tokens: int = 200
    """Of an answer."""
    turns: list[list[int]] = dataclasses.field(default_factory=list)
    """The tokens of each turn so far, the boundary at its end."""

    def reset(self) -> None:
        """Forget what has been said."""
        self.turns.clear()

    def reply(self, text: str) -> Generator[str, None, None]:
        """Say something; what it gives is the answer, piece by piece, without its label and its end.

        An answer that is broken off is kept as far as it came. Raises UserError where the tokenizer cannot take the
        text.
        """
        asks, answers = self.run.config.data.labels
        tokenizer = self.run.tokenizer
        asked = tokenizer.encode_lines([f"{asks}: {' '.join(text.split())}"]).tolist()
        label = tokenizer.encode(f"{answers}: ").tolist()
        self.turns.append(asked)
        made: list[int] = []
        told = ""
        try:
            for token in self._tokens(label, made):
                made.append(token)
                text = tokenizer.decode(made)
                if not text.endswith("\ufffd"):  # the bytes of a character come one by one
                    yield text[len(told) :]
                    told = text
        finally:
            self.turns.append([*label, *made, EOS])

    def seen(self, turn: list[int]) -> list[int]:
        """The tokens that an unfinished turn is continued from: as many whole turns before it as leave half of what the
        model sees, or the room of an answer, for what comes; of a turn that is too long itself its end.
        """
        most = self.run.model.max_length
        room = None if most is None else most - max(1, min(self.max_tokens, most // 2))
        tokens = list(turn)
        for before in reversed(self.turns):
            if room is not None and 1 + len(before) + len(tokens) > room:
                break
            tokens = before + tokens
        tokens = [EOS, *tokens]
        return tokens if room is None else tokens[-room:]

    def _tokens(self, label: list[int], made: list[int]) -> Iterator[int]:
        """The tokens of an answer; `made` grows as they are taken."""
        model, params = self.run.model, self.run.params
        allowed_V = jnp.asarray(drawn_tokens(self.run))
        speaks_V = allowed_V & (jnp.arange(len(allowed_V)) != EOS)
        while True:
            unread = self.seen(label + made)
            most = model.max_length
            length = len(unread) + self.max_tokens if most is None else most
            cache = model.init_cache(params, 1, 1 << (length - 1).bit_length() if most is None else most)
            read = 0
            while most is None or read + len(unread) <= most:
                while unread:
                    size = next(size for size in PIECES if size <= len(unread))
                    key = jax.random.fold_in(self.key, len(self.turns) * (self.max_tokens + 1) + len(made))
                    token_B, cache = sampling.next_token(
                        model.extend,
                        params,
                        cache,
                        jnp.array([unread[:size]], jnp.int32),
                        key,
                        strategy=self.strategy,
                        allowed_V=allowed_V if made else speaks_V,
                    )
                    read, unread = read + size, unread[size:]
                token = int(token_B[0])
                if token == EOS:
                    return
                yield token
                if len(made) >= self.max_tokens:
                    return
                unread = [token]
