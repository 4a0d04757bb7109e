"""The comparison of two sides: its numbers, and how they are printed."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxlm.compare.pairing import Pieces
from jaxlm.compare.sides import Side
from jaxlm.compare.statistics import LEVEL, Difference, TTest

FEWEST_TIMES = 5
"""Tokens that occur less often are not listed by their mean, which is chance."""
LONGEST_TOKEN = 24
"""Characters of a token that are printed at most."""


@dataclasses.dataclass(frozen=True)
class TokenDifference:
    """The losses of one token, or piece of text, at all its places."""

    token: str
    count: int
    a: float
    """Mean -log p under A, in nats."""
    b: float
    """The same under B."""

    @property
    def mean(self) -> float:
        """The mean of A minus B, in nats."""
        return self.a - self.b

    @property
    def total(self) -> float:
        """The sum of A minus B over all places, in nats."""
        return self.mean * self.count


def token_differences(pieces: Pieces) -> list[TokenDifference]:
    """The losses of every token that the text has, means over the runs of each side."""
    tokens, kind_P = np.unique(np.array(pieces.text, object).astype(str), return_inverse=True)
    count_K = np.bincount(kind_P)
    a_K, b_K = (
        np.bincount(kind_P, nats_P) / count_K for nats_P in (pieces.a_RP.mean(axis=0), pieces.b_RP.mean(axis=0))
    )
    rows = zip(tokens.tolist(), count_K.tolist(), a_K.tolist(), b_K.tolist(), strict=True)
    return [TokenDifference(*row) for row in rows]


def by_total(tokens: Sequence[TokenDifference], most: int) -> list[TokenDifference]:
    """The tokens whose summed differences are farthest from 0; none that are 0."""
    return [one for one in sorted(tokens, key=lambda one: -abs(one.total)) if one.total][:most]


def by_mean(tokens: Sequence[TokenDifference], most: int) -> list[TokenDifference]:
    """The tokens, of FEWEST_TIMES places or more, whose mean differences are farthest from 0."""
    often = [one for one in tokens if one.count >= FEWEST_TIMES and one.mean]
    return sorted(often, key=lambda one: -abs(one.mean))[:most]


def verdict(found: Difference, unit: str) -> str:
    """Which side is better, by how much, with the interval."""
    low, high = sorted((abs(found.low), abs(found.high)))
    if found.low <= 0 <= found.high:
        return (
            f"no clear difference: A - B is {found.estimate:+.4f} {unit}, {LEVEL:.0%} interval {found.low:+.4f} to "
            f"{found.high:+.4f}"
        )
    better = "A" if found.estimate < 0 else "B"
    return f"{better} is better by {abs(found.estimate):.4f} {unit}, {LEVEL:.0%} interval {low:.4f} to {high:.4f}"


def t_line(name: str, test: TTest) -> str:
    """A t-test in words."""
    p = "p < 1e-6" if test.p < 1e-6 else f"p = {test.p:.2g}"
    return f"{p} ({name}, t with {test.degrees:.3g} degrees of freedom, standard error {test.standard_error:.4f})"


def side_line(letter: str, side: Side, losses: Sequence[float], unit: str) -> str:
    """A side with its loss: of seeds, the mean and its standard error."""
    run = side.runs[0]
    model = type(run.config.model).__name__.removesuffix("Config")
    mean = float(np.mean(losses))
    if not side.is_group:
        return f"{letter}: {side.path} ({model}, step {run.step:,}): {mean:.4f} {unit}"
    error = float(np.std(losses, ddof=1)) / len(losses) ** 0.5
    seeds = f"{len(losses)} seeds from {side.seeds[0]} on"
    return f"{letter}: {side.path} ({model}, {seeds}): {mean:.4f} {unit}, standard error {error:.4f}"


def tables(tokens: Sequence[TokenDifference], most: int) -> list[str]:
    """The tokens on which the sides differ most, by sum and by mean."""
    lines: list[str] = []
    for title, rows in (
        ("tokens that make most of the difference, by the sum of A - B:", by_total(tokens, most)),
        (f"tokens that differ most each time, of those that occur {FEWEST_TIMES} times:", by_mean(tokens, most)),
    ):
        if rows:
            lines += ["", title, *_table(rows)]
    return lines


def as_json(tokens: Sequence[TokenDifference], most: int) -> dict[str, Any]:
    """The tables for --json."""

    def rows(listed: Sequence[TokenDifference]) -> list[dict[str, Any]]:
        return [{**dataclasses.asdict(one), "mean": one.mean, "total": one.total} for one in listed]

    return {"by_total": rows(by_total(tokens, most)), "by_mean": rows(by_mean(tokens, most))}


def _table(rows: Sequence[TokenDifference]) -> list[str]:
    cells = [["token", "times", "A", "B", "A - B", "sum"]]
    for one in rows:
        token = one.token if len(one.token) <= LONGEST_TOKEN else one.token[: LONGEST_TOKEN - 1] + "…"
        cells.append(
            [token, f"{one.count:,}", f"{one.a:.4f}", f"{one.b:.4f}", f"{one.mean:+.4f}", f"{one.total:+,.1f}"]
        )
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in cells
    ]
