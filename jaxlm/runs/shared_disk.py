"""A file system that several hosts share, on which one host may see later what another has written."""

import time
from collections.abc import Iterable
from pathlib import Path

from jaxlm.devices import processes
from jaxlm.errors import UserError

SHARED = 10.0
"""Seconds after which another host sees what was written into a shared file system."""
RETRY = 0.1
"""Seconds between looks."""


def wait_to_see(run_dir: Path, paths: Iterable[Path]) -> None:
    """Wait until this process sees files of a run that the first of several processes has seen or written.

    Raises UserError, naming run_dir and the first file that is not there, after SHARED seconds.
    """
    if processes.is_first():
        return
    until = time.monotonic() + SHARED
    for path in paths:
        while not path.exists():
            if time.monotonic() > until:
                raise UserError(
                    f"run_dir {str(run_dir)!r} wants a file system that all hosts share: process 0 sees {path.name} in "
                    f"it, but process {processes.index()} does not after {SHARED:g} s; take another --run-dir"
                )
            time.sleep(RETRY)
