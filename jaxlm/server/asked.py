"""What requests for completions and for chat have in common: how texts are drawn, and how many."""

import dataclasses
import secrets
from typing import Any

from jaxlm.cli.server_command import Limits
from jaxlm.errors import UserError
from jaxlm.inference.sampling import Strategy
from jaxlm.inference.slots import MOST_TOP
from jaxlm.server.failures import ApiError
from jaxlm.server.fields import Fields

MOST_CHOICES, MOST_STOPS = 128, 16


@dataclasses.dataclass(frozen=True)
class Asked:
    """How the texts of an answer are drawn and given."""

    strategy: Strategy
    seed: int
    """Drawn by the system's generator where a request has none."""
    stops: list[str]
    n: int
    max_tokens: int | None
    streams: bool
    """True if the texts are given as they come."""
    gives_usage: bool
    """True if a stream ends with the numbers of tokens."""


def read_asked(fields: Fields, limits: Limits) -> Asked:
    """The fields that both kinds of request have. Raises ApiError."""
    top_k = fields.whole("top_k", -1, 2**31 - 1)
    numbers = {name: fields.number(name) for name in ("temperature", "top_p", "min_p", "repetition_penalty")}
    given = {name: value for name, value in numbers.items() if value is not None}
    try:
        strategy = Strategy(top_k=None if top_k in (None, 0, -1) else top_k, **given)
    except UserError as error:
        raise ApiError(400, str(error), param=str(error).partition(" ")[0], code="invalid_value") from None
    seed = fields.whole("seed", -(2**63), 2**64 - 1)
    n = fields.whole("n", 1, min(MOST_CHOICES, limits.batch + limits.queue), 1)
    assert n is not None
    most = [fields.whole(name, 0, limits.output_tokens) for name in ("max_completion_tokens", "max_tokens")]
    return Asked(
        strategy,
        secrets.randbits(32) if seed is None else seed % 2**32,
        fields.strings("stop", MOST_STOPS),
        n,
        next((number for number in most if number is not None), None),
        fields.flag("stream"),
        _gives_usage(fields.take("stream_options")),
    )


def read_top(fields: Fields, name: str) -> int | None:
    """How many most likely tokens are given beside each."""
    return fields.whole(name, 0, MOST_TOP)


def _gives_usage(options: Any) -> bool:
    return isinstance(options, dict) and options.get("include_usage") is True
