"""A conversation with a model of dialogues: whole turns as its history, and answers as they come."""

import dataclasses
from collections.abc import Generator

import jax

from jaxlm.inference.generate import decode, pieces
from jaxlm.inference.sampling import Strategy
from jaxlm.runs.loading import Run
from jaxlm.tokenizers import EOS


@dataclasses.dataclass
class Chat:
    """A conversation so far, and how the next answer is drawn: as `generate` draws it at the answer's number.

    Answer i, from 0, is what `generate` gives at place i for the whole conversation as a prompt, up to the end of the
    turn, as long as the conversation fits into what the model sees.
    """

    run: Run
    strategy: Strategy
    key: jax.Array
    max_tokens: int = 200
    """Tokens of an answer, at most."""
    turns: list[list[int]] = dataclasses.field(default_factory=list)
    """The tokens of each turn's text so far, EOS at its end: those of the text, as a prompt has them, since an answer
    may be drawn in other tokens than its text is encoded in."""

    def reset(self) -> None:
        """Forget what has been said."""
        self.turns.clear()

    def reply(self, text: str) -> Generator[str, None, None]:
        """Say something; yields the answer, piece by piece, without its label and its end.

        An answer that is broken off is kept as far as it came. Raises UserError where the tokenizer cannot take the
        text.
        """
        asks, answers = self.run.config.data.labels
        tokenizer, number = self.run.tokenizer, len(self.turns) // 2
        asked = tokenizer.encode_lines([f"{asks}: {' '.join(text.split())}"]).tolist()
        label = tokenizer.encode(f"{answers}: ").tolist()
        self.turns.append(asked)
        made: list[int] = []
        try:
            new = decode(
                self.run,
                [self.seen(label)],
                [number],
                self.strategy,
                self.max_tokens,
                self.key,
                ends_turn=True,
                every=1,
            )
            yield from pieces(self.run, (tokens for (tokens,) in new), ["\n"], made)
        finally:
            said = tokenizer.decode(token for token in made if token != EOS)
            self.turns.append(tokenizer.encode_lines([f"{answers}: {said}"]).tolist())

    def seen(self, turn: list[int]) -> list[int]:
        """Tokens that an unfinished turn is continued from: as many whole turns before it as leave half of what the
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
