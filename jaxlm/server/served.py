"""A run that is served: its batch, what may be asked of it, and the tokens of prompts and conversations."""

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax

from jaxlm.cli.server_command import Limits
from jaxlm.errors import UserError
from jaxlm.inference.batcher import Batcher
from jaxlm.inference.chat import Chat, open_end
from jaxlm.inference.generate import drawn_tokens, end_of, prompt_tokens, stops_of, tokens_of
from jaxlm.inference.rows import Row
from jaxlm.inference.sampling import Strategy
from jaxlm.inference.texts import text_of
from jaxlm.models.check import check_decodes
from jaxlm.ops import prng
from jaxlm.runs.loading import Run
from jaxlm.server import templates
from jaxlm.server.failures import ApiError, refused

EOS_NAME = "<|endoftext|>"
"""What stands for the token that ends a text, which has none itself."""


@contextlib.contextmanager
def naming(param: str) -> Iterator[None]:
    """Context for using a field of a request: a UserError becomes an ApiError that names the field."""
    try:
        yield
    except UserError as error:
        raise ApiError(400, str(error), param=param, code="invalid_value") from None


@dataclasses.dataclass(frozen=True)
class Prompt:
    """Tokens to be continued."""

    tokens: list[int]
    """As the model reads them, at least one."""
    hidden: int
    """How many of them precede the text that was given: 1 where EOS begins it."""
    text: str
    """The text, for echo."""
    stops: list[str]
    """Texts that end an answer, beside those that a request names."""
    ends: frozenset[int]
    """Tokens that end it."""
    drops: str = ""
    """What an answer is given without, if it begins so."""

    @property
    def count(self) -> int:
        """The tokens of the text that was given."""
        return len(self.tokens) - self.hidden


class Served:
    """A run and its batch. Prompts are made in the thread of the event loop, the batch belongs to the worker's."""

    def __init__(self, name: str, run: Run, limits: Limits):
        check_decodes(run.config.model, run.model)
        self.name, self.run, self.limits = name, run, limits
        self.created = int(time.time())
        self._names: dict[int, str] = {}
        most = run.model.max_length
        room = limits.context if most is None else min(most, limits.context)
        self._most = room if self._is_bounded(room) else None
        """Tokens of a prompt and its answer together, at most; None: any number, the oldest ones are forgotten."""
        ends, self.template = run.tokenizer.end_tokens, run.tokenizer.chat_template
        allowed_V = drawn_tokens(run)
        if self.template is not None:
            allowed_V[list(ends)] = True
        self._ends = frozenset(ends) if self.template is not None or end_of(run) is not None else frozenset()
        self.batcher = Batcher(
            run.model,
            run.params,
            places=limits.batch,
            room=room,
            allowed_V=allowed_V,
            eos=run.tokenizer.eos,
            kept=limits.kept,
        )

    def _is_bounded(self, room: int) -> bool:
        """True if a row that goes on beyond its room would be another one than with more room."""
        model, params = self.run.model, self.run.params
        if model.max_length is not None:
            return room < model.max_length
        one, other = (jax.eval_shape(lambda p, n=n: model.init_cache(p, 1, n), params) for n in (room, 2 * room))
        return [leaf.shape for leaf in jax.tree.leaves(one)] != [leaf.shape for leaf in jax.tree.leaves(other)]

    @property
    def kind(self) -> str:
        """lines, stream or dialogues."""
        return self.run.config.data.kind

    @property
    def chats(self) -> bool:
        """True if the run can answer conversations."""
        return self.kind == "dialogues" or self.template is not None

    @property
    def goes_on(self) -> bool:
        """True if a text goes on where positions end."""
        return self.kind != "lines" and self._most is None

    def prompt(self, given: str | Sequence[int], param: str = "prompt") -> Prompt:
        """The prompt of a text, as `jaxlm.generate` takes it, or of tokens, before which EOS stands as before a line.

        Raises ApiError for what the tokenizer does not have.
        """
        eos = self.run.tokenizer.eos
        if isinstance(given, str):
            with naming(param):
                tokens = prompt_tokens(self.run, given)
            begins = len(self.run.tokenizer.prefix) or int(not given)
            text, hidden = given, begins if self.kind == "stream" else 1
        else:
            tokens, hidden = self.checked(given, param), 0
            text = text_of(self.run, tokens)
            if (self.kind != "stream" and tokens[:1] != [eos]) or not tokens:
                tokens, hidden = [self.run.tokenizer.start if self.kind == "stream" else eos, *tokens], 1
        return Prompt(tokens, hidden, text, stops_of(self.run, ""), self._ends)

    def checked(self, tokens: Sequence[Any], param: str) -> list[int]:
        """The tokens. Raises ApiError unless they are numbers of the vocabulary."""
        size = self.run.tokenizer.vocab_size
        for token in tokens:
            if not isinstance(token, int) or isinstance(token, bool) or not 0 <= token < size:
                raise refused(param, f"wants tokens from 0 to {size - 1}, got {token!r}")
        return list(tokens)

    def conversation(self, messages: Sequence[dict[str, str]], max_tokens: int) -> Prompt:
        """The prompt that a conversation's next answer continues. Raises ApiError where the run has none."""
        if self.template is not None:
            return self._by_template(messages)
        if self.kind != "dialogues":
            message = f"model {self.name!r} holds no conversations: it was trained on {self.kind}; ask /v1/completions"
            raise ApiError(400, message, param="model", code="unsupported_model")
        asks, answers = self.run.config.data.labels
        labels = {"user": asks, "assistant": answers}
        chat = Chat(self.run, Strategy(), prng.from_seed(0), max_tokens)
        for i, said in enumerate(messages):
            if said["role"] not in labels:
                raise refused(f"messages[{i}].role", f"wants user or assistant for this model, got {said['role']!r}")
            line = f"{labels[said['role']]}: {' '.join(said['content'].split())}"
            with naming(f"messages[{i}].content"):
                chat.turns.append(self.run.tokenizer.encode_lines([line]).tolist())
        if messages[-1]["role"] != "user":
            raise refused("messages", "wants one of the user's at its end")
        label, blank = open_end(self.run.tokenizer, f"{answers}: ")
        tokens = chat.seen(label)
        eos = self.run.tokenizer.eos
        return Prompt(tokens, 1, "", ["\n"], frozenset({eos}), drops=blank)

    def _by_template(self, messages: Sequence[dict[str, str]]) -> Prompt:
        tokenizer: Any = self.run.tokenizer
        assert self.template is not None
        text = templates.rendered(self.template, messages, tokenizer)
        with naming("messages"):
            tokens = tokenizer.encode_special(text).tolist()
        return Prompt(tokens or [tokenizer.eos], 0, "", [], self._ends)

    def room_for(self, prompt: Prompt, max_tokens: int | None, *, echo: bool = False) -> int:
        """Tokens that an answer has at most: max_tokens, or as many as may be. Raises ApiError where it has no room."""
        limits, size = self.limits, prompt.count
        if size > limits.prompt_tokens:
            raise ApiError(
                400,
                f"the prompt has {size} tokens, this server takes {limits.prompt_tokens} (--prompt-tokens)",
                param="prompt",
                code="context_length_exceeded",
            )
        most = self.run.model.max_length
        if echo and most is not None and len(prompt.tokens) > most:
            raise ApiError(
                400,
                f"the prompt has {len(prompt.tokens)} tokens, model {self.name!r} sees {most}",
                param="prompt",
                code="context_length_exceeded",
            )
        left = limits.output_tokens if self._most is None else self._most + 1 - len(prompt.tokens)
        if max_tokens is not None and max_tokens > limits.output_tokens:
            raise refused("max_tokens", f"wants at most {limits.output_tokens} (--output-tokens), got {max_tokens}")
        if left < (1 if max_tokens is None else max_tokens):
            raise ApiError(
                400,
                f"the prompt's {len(prompt.tokens)} tokens and an answer's {max_tokens or 1} have no room in "
                f"{self._most} (--context)",
                param="max_tokens",
                code="context_length_exceeded",
            )
        return min(left, limits.output_tokens) if max_tokens is None else max_tokens

    def row(
        self, prompt: Prompt, strategy: Strategy, *, seed: int, place: int, limit: int, top: int | None, scores: bool
    ) -> Row:
        """A row that continues a prompt."""
        return Row(
            prompt.tokens,
            strategy,
            seed=seed,
            place=place,
            limit=limit,
            ends=prompt.ends,
            goes_on=self.goes_on,
            top=top,
            scores_prompt=scores,
        )

    def encode(self, text: str) -> list[int]:
        """Tokens of a text, without what precedes it; EOS_NAME alone is the token. Raises ApiError."""
        if text == EOS_NAME:
            return [self.run.tokenizer.eos]
        with naming("prompt"):
            return tokens_of(self.run, text)

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens."""
        return text_of(self.run, tokens)

    def spell(self, token: int) -> str:
        """A token as text; one that has none by its name, a part of a character as "bytes:" and its bytes."""
        if token not in self._names:
            self._names[token] = self._spelled(token)
        return self._names[token]

    def _spelled(self, token: int) -> str:
        if token == self.run.tokenizer.eos:
            return "\n" if self.kind == "dialogues" else EOS_NAME
        text = self.run.tokenizer.decode([token])
        if "\ufffd" in text and (raw := self.bytes_of(token)) is not None:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)
        return text or self.run.tokenizer.spell(token)

    def bytes_of(self, token: int) -> list[int] | None:
        """The bytes of a token, where it has any: those of a part of a character from how it is spelled."""
        text = self.run.tokenizer.decode([token])
        if "\ufffd" not in text:
            return list(text.encode("utf-8", "surrogatepass")) or None
        parts = self.run.tokenizer.spell(token).strip("<>").split("><")
        if all(part.startswith("0x") for part in parts):
            return [int(part, 16) for part in parts]
        return list(text.encode("utf-8", "surrogatepass"))
