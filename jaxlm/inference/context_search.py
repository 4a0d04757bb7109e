"""Search for a token's context in the tokens of train, by narrowing the places that match from its last token back."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

KEPT = 2
"""Longest contexts whose places are kept: the shortest ones have the most, and a text repeats them."""


class Found(NamedTuple):
    """The longest end of a token's context that a text has."""

    length: int
    """Tokens of the longest end of the context that stands in the text before some token."""
    place_P: np.ndarray
    """The places right after it, ascending."""
    order: int | None
    """The n-gram order that would have sufficed; None if none does. See `ContextSearch.look`."""


class ContextSearch:
    """Contexts in a text of N tokens, the first `boundary` of which are only context (the start of the first line).

    Each of a context's tokens costs a comparison for each place that matched so far, the last one N, once for each
    token of the vocabulary.
    """

    def __init__(self, token_N: np.ndarray, boundary: int = 0):
        self._token_N, self._boundary = token_N, boundary
        self._kept: dict[tuple[int, ...], np.ndarray] = {(): np.arange(boundary, len(token_N), dtype=np.int32)}
        self._counts: dict[tuple[int, ...], tuple[np.ndarray, np.ndarray]] = {}

    def look(self, context: Sequence[int], token: int) -> Found:
        """Find the longest end of a context in the text, and the n-gram order that suffices for the token after it.

        Order n suffices if the token is a most frequent one (ties included) after the last n - 1 tokens of the context
        wherever they stand in the text: if the maximum-likelihood n-gram has it as a most likely token. The smallest
        such order is given.
        """
        place_P, order, is_open = self._kept[()], None, True
        for length in range(len(context) + 1):
            key = tuple(context[len(context) - length :]) if length <= KEPT else None
            if length:
                narrowed_P = self._narrowed(place_P, context[-length], length, key)
                if not len(narrowed_P):
                    return Found(length - 1, place_P, order)
                place_P = narrowed_P
            if is_open:
                times, most = self._times(place_P, token, key)
                order = length + 1 if 0 < times == most else None
                is_open = 0 < times < most
        return Found(len(context), place_P, order)

    def _narrowed(self, place_P: np.ndarray, first: int, length: int, key: tuple[int, ...] | None) -> np.ndarray:
        """Those of the places before which the token `first` stands at this distance."""
        if key in self._kept:
            return self._kept[key]
        place_P = place_P[np.searchsorted(place_P, length) :]
        narrowed_P = place_P[self._token_N[place_P - length] == first]
        if key is not None:
            self._kept[key] = narrowed_P
        return narrowed_P

    def _times(self, place_P: np.ndarray, token: int, key: tuple[int, ...] | None) -> tuple[int, int]:
        """How often the token stands at the places, and how often the most frequent one does."""
        if key not in self._counts:
            count_V = np.bincount(self._token_N[place_P])
            token_U = np.flatnonzero(count_V)
            found = token_U, count_V[token_U]
            if key is None:
                return _of_token(*found, token)
            self._counts[key] = found
        return _of_token(*self._counts[key], token)


def _of_token(token_U: np.ndarray, count_U: np.ndarray, token: int) -> tuple[int, int]:
    return int(count_U[token_U == token].sum()), int(count_U.max(initial=0))
