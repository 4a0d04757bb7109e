"""Text of tokens as they come: never a part of a character, nor what may become a string that ends the text."""

from collections.abc import Sequence

from jaxlm.runs.loading import Run

INCOMPLETE = "\ufffd"
"""The end of a text whose last character has bytes that are still to come."""


class TextStream:
    """Text of a run's tokens, in pieces, up to the first of some stops. The pieces joined are the text."""

    def __init__(self, run: Run, stops: Sequence[str] = ()):
        self._run, self._stops = run, [stop for stop in stops if stop]
        self._tokens: list[int] = []
        """Tokens since the last one after which all characters were complete."""
        self._taken = 0
        """Characters of theirs that are complete, and have been given or are held."""
        self._held = ""
        """Complete characters that may become a stop."""
        self.given = 0
        """Characters of the pieces so far."""
        self.ended = False
        """True once a stop has come: the text is what has been given."""

    @property
    def known(self) -> int:
        """Characters so far that are complete, those that are not given yet among them."""
        return self.given + len(self._held)

    def push(self, token: int) -> str:
        """The piece that a token adds, "" if nothing can be given yet."""
        self._tokens.append(token)
        text = text_of(self._run, self._tokens)
        complete = len(text) - overlap(text, INCOMPLETE * 4)
        piece = self._released(text[self._taken : complete])
        if complete == len(text):
            self._tokens, self._taken = [], 0
        else:
            self._taken = complete
        return piece

    def finish(self) -> str:
        """The last piece, when no token is to come."""
        return "" if self.ended else self._released(text_of(self._run, self._tokens)[self._taken :], is_last=True)

    def _released(self, new: str, is_last: bool = False) -> str:
        text = self._held + new
        piece = cut(text, self._stops)
        self._held = ""
        if piece != text:
            self.ended = True
        elif not is_last:
            end = len(text) - max((overlap(text, stop) for stop in self._stops), default=0)
            piece, self._held = text[:end], text[end:]
        self.given += len(piece)
        return piece


def text_of(run: Run, tokens: Sequence[int]) -> str:
    """Text of a run's tokens; EOS of a dialogue is a line end, where it stands for an unknown vector "[NIV]"."""
    if run.marks_unknown:
        known = [token for token in tokens if token != run.tokenizer.eos]
        return run.tokenizer.decode(known) + "[NIV]" * (len(known) < len(tokens))
    if run.config.data.kind != "dialogues":
        return run.tokenizer.decode(tokens)
    turns: list[list[int]] = [[]]
    for token in tokens:
        if token == run.tokenizer.eos:
            turns.append([])
        else:
            turns[-1].append(token)
    return "\n".join(map(run.tokenizer.decode, turns))


def cut(text: str, stops: Sequence[str]) -> str:
    """Text before the first of the stops in it."""
    return text[: min((place for stop in stops if stop and (place := text.find(stop)) >= 0), default=len(text))]


def overlap(text: str, stop: str) -> int:
    """Length of the longest end of a text that is a beginning of a stop."""
    return next((size for size in range(min(len(stop), len(text)), 0, -1) if text.endswith(stop[:size])), 0)
