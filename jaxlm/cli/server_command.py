"""Settings of the server: python -m jaxlm.server RUN [RUN ...]."""

import dataclasses
import ipaddress
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jaxlm.cli.parsing import OpensRuns, parse, trust_last
from jaxlm.config import check
from jaxlm.errors import UserError, reading


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one client, and all of them, may ask for."""

    batch: int = 16
    """Texts that are drawn at once, a power of 2."""
    queue: int = 256
    """Texts that wait for a place among them, at most: beyond, 503."""
    concurrency: int = 128
    """Requests of one client (an API key, else an address) at once, at most: beyond, 429."""
    context: int = 4096
    """Tokens of a text that have room in memory, of a model that sees more or any number."""
    prompt_tokens: int = 32_768
    """Tokens of a prompt, at most."""
    output_tokens: int = 4096
    """Tokens of an answer, at most."""
    body: int = 2_000_000
    """Bytes of a request, at most: beyond, 413."""
    timeout: float = 600.0
    """Seconds until a request is given up, its waiting included: 504."""
    kept: int = 8
    """Caches of ended texts that are kept for those that begin with the same tokens, as a chat's next turn does."""
    grace: float = 30.0
    """Seconds that requests have to finish after SIGTERM or Ctrl-C."""


@dataclasses.dataclass(frozen=True)
class ServerCommand(OpensRuns):
    """Serve runs over HTTP, with OpenAI's API and a page to try them on."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """The run directories."""
    host: str = "127.0.0.1"
    """The address to listen on; one that other machines reach wants --api-key-file."""
    port: int = 8000
    """The port; 0: one that is free."""
    api_key_file: Path | None = None
    """A file with a key on each line: requests must bring one of them, as Authorization: Bearer KEY."""
    allow_host: tuple[str, ...] = ()
    """Names by which a server on this machine alone is called, beside localhost and its addresses."""
    limits: Annotated[Limits, tyro.conf.arg(name="")] = dataclasses.field(default_factory=Limits)
    warm_up: bool = True
    """Compile before the first request rather than during it."""
    checkpoint: Literal["best", "last"] = "best"
    """Which parameters: the best by dev loss, or the last."""
    device: Literal["auto", "cpu", "gpu", "tpu"] = "auto"
    """auto: the best that JAX finds."""

    @property
    def is_local(self) -> bool:
        """True if only this machine can reach the address."""
        return is_loopback(self.host)


def parse_server(args: list[str]) -> ServerCommand:
    """The command of python -m jaxlm.server. Raises UserError before anything is loaded."""
    command = parse(ServerCommand, trust_last(args), prog="python -m jaxlm.server")
    if not command.runs:
        raise UserError("runs wants at least one run directory, as in: python -m jaxlm.server runs/names_gpt")
    limits = command.limits
    check.between("--port", command.port, 0, 65_535)
    check.between("--batch", limits.batch, 1, 4096)
    if limits.batch & (limits.batch - 1):
        raise UserError(f"--batch wants a power of 2, got {limits.batch}: take {1 << (limits.batch.bit_length() - 1)}")
    check.at_least("--queue", limits.queue, 0)
    check.at_least("--concurrency", limits.concurrency, 1)
    check.at_least("--context", limits.context, 1)
    check.at_least("--prompt-tokens", limits.prompt_tokens, 1)
    check.at_least("--output-tokens", limits.output_tokens, 1)
    check.at_least("--body", limits.body, 1)
    check.more_than("--timeout", limits.timeout, 0)
    check.at_least("--kept", limits.kept, 0)
    check.at_least("--grace", limits.grace, 0)
    if not command.is_local and command.api_key_file is None:
        raise UserError(
            f"--host {command.host} can be reached from other machines, which wants --api-key-file FILE with a key on "
            "each line; leave --host out to serve this machine alone"
        )
    return command


def is_loopback(host: str) -> bool:
    """True for localhost and its addresses."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def read_keys(path: Path) -> tuple[str, ...]:
    """The keys of a file. Raises UserError where it cannot be read or has none."""
    with reading(path, "--api-key-file"):
        keys = tuple(line.strip() for line in path.read_text("utf-8").splitlines() if line.strip())
    if not keys:
        raise UserError(f"--api-key-file wants a key on each line, got {str(path)!r}, which has none")
    if weak := [key for key in keys if len(key) < 16 or not key.isascii()]:
        raise UserError(
            f"--api-key-file wants keys of at least 16 ASCII characters, got one of {len(weak[0])}: "
            'python -c "import secrets; print(secrets.token_urlsafe(32))" makes one'
        )
    return keys
