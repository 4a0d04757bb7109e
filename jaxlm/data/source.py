"""Where text comes from: a file of the user's, the bundled names, or a named set that is downloaded once."""

import dataclasses
import hashlib
import os
import tempfile
from importlib import resources
from pathlib import Path

from jaxlm.config import DataConfig
from jaxlm.config.settings import at_home
from jaxlm.errors import UserError
from jaxlm.text_files import read_pieces


@dataclasses.dataclass(frozen=True)
class NamedSet:
    """A text on the web whose content is pinned by its hash."""

    name: str
    url: str
    sha256: str


NAMED_SETS = {
    named.name: named
    for named in (
        NamedSet(
            "makemore",
            "https://raw.githubusercontent.com/karpathy/makemore/master/names.txt",
            "0a30b5557f192f32ab962680889aac5f6fda0f4cecf40a6d0b5694f58ea8cc4d",
        ),
        NamedSet(
            "tinyshakespeare",
            "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
            "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
        ),
    )
}


def read(config: DataConfig) -> str:
    """The text that the settings name, LF at its line ends. Raises UserError naming data.path or data.name."""
    return read_text(*locate(config), config.encoding)


def locate(config: DataConfig) -> tuple[Path, str]:
    """The file that the settings name, and by which setting; a named set is downloaded where it is missing."""
    if config.path is not None:
        return Path(config.path), "data.path"
    if config.name == "ssa_2017":
        return Path(str(resources.files("jaxlm").joinpath("bundled/ssa_2017.txt"))), "data.name"
    return fetch(NAMED_SETS[config.name], cache_dir()), "data.name"


def read_text(path: Path, setting: str, encoding: str = "utf-8") -> str:
    """A file as text with LF at its line ends. Raises UserError naming the setting, also where all is white space."""
    text = "".join(read_pieces(path, setting, encoding))
    if not text.strip():
        raise UserError(f"{setting} wants text, got nothing but white space in {str(path)!r}")
    return text


def cache_dir() -> Path | None:
    """Where downloads and compiled programs are kept between runs: $XDG_CACHE_HOME/jaxlm or ~/.cache/jaxlm.

    None where no home directory is known: what cannot be kept is done without.
    """
    try:
        home = Path(at_home(os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")))
    except RuntimeError:
        return None
    return home / "jaxlm"


def fetch(named: NamedSet, cache: Path | None) -> Path:
    """The file of a named set, downloaded unless the cache has it; it appears whole, with the right hash, or not.

    Raises UserError where it cannot be had, with --data.path as the way out.
    """
    import http.client  # here, since most runs download nothing
    import urllib.error
    import urllib.request

    way_out = "get the file yourself and give it with --data.path FILE"
    if cache is None:
        raise UserError(
            f"data.name {named.name} is kept in ~/.cache, but no home directory is known: set XDG_CACHE_HOME, or "
            f"{way_out}"
        )
    path = cache / f"{named.name}.txt"
    if path.is_file() and _sha256(path.read_bytes()) == named.sha256:
        return path
    try:
        with urllib.request.urlopen(named.url, timeout=30) as response:
            raw = response.read()
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        reason = getattr(error, "reason", None) or error
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        raise UserError(
            f"data.name {named.name} cannot be downloaded from {named.url} ({reason}); {way_out}"
        ) from error
    got = _sha256(raw)
    if got != named.sha256:
        raise UserError(f"data.name {named.name} wants sha256 {named.sha256[:12]}…, got {got[:12]}…; {way_out}")
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            (Path(scratch) / path.name).write_bytes(raw)
            (Path(scratch) / path.name).replace(path)
    except OSError as error:
        raise UserError(
            f"data.name {named.name} cannot be kept in {str(cache)!r}: {error.strerror}; set XDG_CACHE_HOME, or "
            f"{way_out}"
        ) from error
    return path


def _sha256(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()
