"""Conversations as text, by the chat template that an imported tokenizer brings."""

import functools
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NoReturn

from jaxlm.errors import UserError
from jaxlm.server.failures import ApiError


def rendered(template: str, messages: Sequence[dict[str, str]], tokenizer: Any) -> str:
    """The text that the next answer continues. Raises ApiError where the template refuses the conversation.

    The template is somebody else's program: it runs in Jinja's immutable sandbox, without access to anything but what
    is given here.
    """
    from jinja2 import TemplateError

    try:
        return _compiled(template).render(
            messages=messages,
            add_generation_prompt=True,
            bos_token=tokenizer.bos_text,
            eos_token=tokenizer.eos_text,
            tools=None,
            documents=None,
        )
    except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as error:
        raise ApiError(
            400, f"messages do not fit the model's chat template: {error}", param="messages", code="invalid_value"
        ) from None


def check(template: str) -> None:
    """Raise UserError if a template cannot be read, or its library is not installed."""
    try:
        from jinja2 import TemplateError
    except ImportError:
        raise UserError("a chat template wants the extra: pip install 'jaxlm[server]'") from None
    try:
        _compiled(template)
    except TemplateError as error:
        raise UserError(f"tokenizer.json has a chat template that Jinja cannot read: {error}") from None


@functools.lru_cache(maxsize=16)
def _compiled(template: str) -> Any:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> NoReturn:
        raise ValueError(message)

    options = {"trim_blocks": True, "lstrip_blocks": True, "extensions": ["jinja2.ext.loopcontrols"]}
    environment = ImmutableSandboxedEnvironment(**options)
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment.from_string(template)
