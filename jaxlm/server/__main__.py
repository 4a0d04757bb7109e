"""Serve runs over HTTP: python -m jaxlm.server RUN [RUN ...] [--host 127.0.0.1] [--port 8000]."""

import collections
from pathlib import Path
from typing import Any

from jaxlm.cli.process import run_main, show
from jaxlm.cli.server_command import ServerCommand, parse_server, read_keys
from jaxlm.errors import UserError


def main(args: list[str]) -> int:
    """Serve the runs that the arguments name, until a signal comes."""
    command = parse_server(args)
    keys = () if command.api_key_file is None else read_keys(command.api_key_file)
    try:
        from jaxlm.server.serving import listening, serve
    except ImportError:
        raise UserError("python -m jaxlm.server wants the extra: pip install 'jaxlm[server]'") from None
    from jaxlm.server.state import State

    names = names_of(command.runs)
    with listening(command.host, command.port) as bound:
        runs = [opened(command, name, path) for name, path in names.items()]
        serve(command, State(runs, command.limits, keys), bound, log=show)
    return 0


def names_of(paths: tuple[Path, ...]) -> dict[str, Path]:
    """The runs by the names that requests have for them: of their directories, or the paths where two are alike.

    Raises UserError for a run that is given twice.
    """
    short = collections.Counter(path.resolve().name for path in paths)
    names = {path.resolve().name if short[path.resolve().name] == 1 else str(path): path for path in paths}
    if len(names) < len(paths):
        raise UserError(f"runs wants each run once, got {' '.join(map(str, paths))}")
    return names


def opened(command: ServerCommand, name: str, path: Path) -> Any:
    """A run with its batch, its programs compiled if that is wanted."""
    from jaxlm.data.source import cache_dir
    from jaxlm.devices import compilation, platform

    platform.choose_device(command.device)
    compilation.enable_cache(cache_dir())
    from jaxlm.runs.loading import load_run
    from jaxlm.server.served import Served

    run = load_run(path, which=command.checkpoint, trust_code=command.trusted, log=show)
    served = Served(name, run, command.limits)
    if command.warm_up:
        for part in served.batcher.warm_up():
            show(f"{name}: compiling {part}")
    return served


if __name__ == "__main__":
    run_main(main)
