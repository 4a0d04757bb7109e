"""The fields of a request's JSON: each is read once with its type and range; those that nobody reads are refused."""

import difflib
import json
from typing import Any

from jaxlm.server.failures import ApiError, refused

IGNORED = ("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key")
"""Fields that change no answer."""
WITHOUT_EFFECT: dict[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "suffix": ("",),
    "response_format": ({"type": "text"},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "parallel_tool_calls": (True, False),
    "modalities": (["text"],),
}
"""Fields of OpenAI's API that are not offered, with the values that ask for nothing (null is one of each)."""


class Fields:
    """A JSON object whose fields are taken out one by one; `done` refuses what is left."""

    def __init__(self, body: bytes):
        try:
            tree = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise ApiError(400, f"the body is no JSON: {error}", code="invalid_json") from None
        if not isinstance(tree, dict):
            raise ApiError(400, f"the body wants a JSON object, got {_kind(tree)}", code="invalid_json")
        self._left, self._read = dict(tree), list[str]()

    def take(self, name: str) -> Any:
        """A field as it is, None if it is missing."""
        self._read.append(name)
        return self._left.pop(name, None)

    def flag(self, name: str) -> bool:
        """True or false; false if it is missing."""
        value = self.take(name)
        if value is not None and not isinstance(value, bool):
            raise refused(name, f"wants true or false, got {_kind(value)}", "invalid_type")
        return bool(value)

    def text(self, name: str, default: str | None = None) -> str | None:
        """A string."""
        value = self.take(name)
        if value is not None and not isinstance(value, str):
            raise refused(name, f"wants a string, got {_kind(value)}", "invalid_type")
        return default if value is None else value

    def whole(self, name: str, least: int, most: int, default: int | None = None) -> int | None:
        """A whole number from `least` to `most`."""
        value = self.take(name)
        if value is None:
            return default
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            raise refused(name, f"wants a whole number, got {_kind(value)}", "invalid_type")
        if not least <= value <= most:
            raise refused(name, f"wants a whole number from {least} to {most}, got {value}")
        return value

    def number(self, name: str, default: float | None = None) -> float | None:
        """A number; its range is checked where it is used."""
        value = self.take(name)
        if value is None:
            return default
        if not isinstance(value, int | float) or isinstance(value, bool) or abs(value) > 1e30:
            raise refused(name, f"wants a number, got {_kind(value)}", "invalid_type")
        return float(value)

    def strings(self, name: str, most: int) -> list[str]:
        """A string or a list of strings, none of them empty."""
        value = self.take(name)
        texts = [] if value is None else [value] if isinstance(value, str) else value
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise refused(name, f"wants a string or a list of strings, got {_kind(value)}", "invalid_type")
        if len(texts) > most:
            raise refused(name, f"wants at most {most} strings, got {len(texts)}")
        return [text for text in texts if text]

    def done(self) -> None:
        """Refuse fields that nobody has read, with the near name, and those that are not offered."""
        for name, value in self._left.items():
            if name in IGNORED or value is None or any(value == free for free in WITHOUT_EFFECT.get(name, ())):
                continue
            if name in WITHOUT_EFFECT:
                raise refused(name, "is not offered by this server", "unsupported_parameter")
            near = difflib.get_close_matches(name, self._read, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise refused(name, f"is not a field of this request{hint}", "unknown_parameter")


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    kinds = {str: "a string", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return kinds.get(type(value), "null")
