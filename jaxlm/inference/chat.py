"""A conversation with a model of dialogues: whole turns as its history, and answers as they come."""

import dataclasses
from collections.abc import Generator, Iterator

import jax

from jaxlm.config.run import DRAFT_TOKENS
from jaxlm.inference.generate import decode, pieces
from jaxlm.inference.sampling import Strategy
from jaxlm.runs.loading import Run
from jaxlm.tokenizers import Tokenizer


@dataclasses.dataclass
class Chat:
    """A conversation so far, and how the next answer is drawn: as `generate` draws it at the answer's number.

    Answer i, from 0, is what `generate` gives at place i for the whole conversation as a prompt, up to the end of the
    turn, as long as the conversation fits into what the model sees. Where tokens begin with the blank before a word, as
    BPE's, the prompt ends without the blank after the label, which is the answer's.
    """

    run: Run
    strategy: Strategy
    key: jax.Array
    max_tokens: int = 200
    """Tokens of an answer, at most."""
    turns: list[list[int]] = dataclasses.field(default_factory=list)
    """The tokens of each turn's text so far, EOS at its end: those of the text, as a prompt has them, since an answer
    may be drawn in other tokens than its text is encoded in."""
    draft: Run | None = None
    """A run with the same tokenizer that proposes the tokens of answers, as in `generate`."""
    draft_tokens: int = DRAFT_TOKENS

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
        label, blank = open_end(tokenizer, f"{answers}: ")
        asked = tokenizer.encode_lines([f"{asks}: {' '.join(text.split())}"]).tolist()
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
                draft=self.draft,
                draft_tokens=self.draft_tokens,
                every=1,
            )
            yield from _without(blank, pieces(self.run, (tokens for (tokens,) in new), ["\n"], made))
        finally:
            said = tokenizer.decode(token for token in [*label, *made] if token != tokenizer.eos)
            self.turns.append(tokenizer.encode_lines([said]).tolist())

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
        tokens = [self.run.tokenizer.bos, *tokens]
        return tokens if room is None else tokens[-room:]


def open_end(tokenizer: Tokenizer, text: str) -> tuple[list[int], str]:
    """Tokens of a text that stay as they are when it goes on, and the end of the text that is not in them.

    BPE has the blank before a word in the word's token: after "network: " it expects what a text rarely has.
    """
    token_N, longer_M = tokenizer.encode(text), tokenizer.encode(text + text)
    same_N = token_N == longer_M[: len(token_N)]
    kept = token_N[: len(token_N) if same_N.all() else int(same_N.argmin())].tolist()
    return kept, text[len(tokenizer.decode(kept)) :]


def _without(beginning: str, pieces: Iterator[str]) -> Iterator[str]:
    """Pieces of a text without what it begins with, if it begins so."""
    text = ""
    for piece in pieces:
        text += piece
        if len(text) >= len(beginning):
            if text := text.removeprefix(beginning):
                yield text
            text, beginning = "", ""
