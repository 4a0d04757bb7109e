"""Range checks that name the setting, what it wants and what it got."""

import math

from jaxlm.errors import UserError

MOST = 2**31 - 1
"""The largest whole number that arrays and their indices hold."""
LARGEST = 3.4e38
"""About the largest number that float32 holds, in which models compute."""


def at_least(name: str, value: int | float | None, low: float) -> None:
    """Raise UserError unless value is None or a finite number >= low, a whole one <= MOST."""
    if isinstance(value, int) and value > MOST:
        between(name, value, low, MOST)
    _check(name, value, f">= {low}", value is None or value >= low)


def more_than(name: str, value: float | None, low: float) -> None:
    """Raise UserError unless value is None or a finite number > low."""
    _check(name, value, f"> {low}", value is None or value > low)


def between(name: str, value: float | None, low: float, high: float) -> None:
    """Raise UserError unless value is None or low <= value <= high."""
    _check(name, value, f"from {low} to {high}", value is None or low <= value <= high)


def below(name: str, value: float | None, low: float, high: float) -> None:
    """Raise UserError unless value is None or low <= value < high."""
    _check(name, value, f">= {low} and < {high}", value is None or low <= value < high)


def half_open(name: str, value: float | None, low: float, high: float) -> None:
    """Raise UserError unless value is None or low < value <= high."""
    _check(name, value, f"above {low} and at most {high}", value is None or low < value <= high)


def _check(name: str, value: float | None, wanted: str, good: bool) -> None:
    if good and value is not None and LARGEST < abs(value) < math.inf:
        good, wanted = False, f"{wanted} and at most {LARGEST}"
    if not good or (value is not None and not math.isfinite(value)):
        raise UserError(f"{name} wants a number {wanted}, got {value}")
