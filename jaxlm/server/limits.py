"""What one client, and all of them together, may ask of the server."""

import dataclasses


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
