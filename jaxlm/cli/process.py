"""How a command starts and ends: signals, exit codes, output, and one line for a mistake.

Quickly imported: until `run_main` is called, Ctrl-C ends in a traceback.
"""

import errno
import gc
import io
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TextIO, cast

from jaxlm.errors import NonFiniteLoss, UserError, one_line

EXIT_USER, EXIT_NON_FINITE = 2, 3
REFUSED_PATHS = (errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTDIR, errno.EROFS)
"""What the system says of a path that it cannot follow or may not change, whatever is asked of it."""
ALLOCATIONS_BETWEEN_COLLECTIONS = 1_000_000
"""Python's 700 costs a tenth of the time that imports and tracing take, 100,000 still 50 ms."""


def run_main(main: Callable[[list[str]], int], *, outlives_output: bool = False) -> NoReturn:
    """Call main with the arguments and exit as the contract says: a user's mistake is one line and code 2.

    Characters that the terminal does not have are escaped. A command whose results are files outlives its output: it
    goes on where nobody reads any more, or the disk that takes its lines is full. Until it calls `leave_in_order`, a
    signal ends it at once.
    """
    if outlives_output:
        _leave_at_once()
    else:
        leave_in_order()
    gc.set_threshold(ALLOCATIONS_BETWEEN_COLLECTIONS)
    sys.stdout, sys.stderr = (_output(stream, outlives_output) for stream in (sys.stdout, sys.stderr))
    try:
        code = main(sys.argv[1:])
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        leave(128 + signal.SIGINT)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        if code > 128:
            leave(code)
    except UserError as error:
        print(f"error: {one_line(str(error))}", file=sys.stderr)
        code = EXIT_USER
    except NonFiniteLoss as error:
        print(f"error: {one_line(str(error))}", file=sys.stderr)
        code = EXIT_NON_FINITE
    except BrokenPipeError:
        sys.stderr.close()
        code = 0
    except OSError as error:
        if error.errno == errno.ENOSPC:
            _drop(sys.stdout)
            print(f"error: the output cannot be written: {error.strerror}", file=sys.stderr)
        elif error.filename is not None and error.errno in REFUSED_PATHS:
            print(f"error: {str(error.filename)!r} cannot be used: {error.strerror}", file=sys.stderr)
        else:
            raise
        code = EXIT_USER
    gc.freeze()  # at the end nothing is worth a search for cycles
    sys.exit(code)


def leave_in_order() -> None:
    """From here on SIGINT and SIGTERM are exceptions: there is something to lose."""
    signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(128 + signum))
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def leave(code: int) -> NoReturn:
    """Exit in the middle of things: libraries' threads may be at work, and crash if Python is taken down with them."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _leave_at_once() -> None:
    """While libraries are imported: an exception there is swallowed, or ends in a crash of the library's own."""
    for signum in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(signum) is not signal.SIG_IGN:
            signal.signal(signum, lambda signum, frame: os._exit(128 + signum))


class _Outlived:
    """A stream whose failures are nobody's: what cannot be written is dropped."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        """As much as can be."""
        try:
            return self._stream.write(text)
        except OSError:
            _drop(self._stream)
            return len(text)

    def flush(self) -> None:
        """If it can be."""
        try:
            self._stream.flush()
        except OSError:
            _drop(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _drop(stream: TextIO) -> None:
    """Let what a stream has buffered, and all that comes, go nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _output(stream: TextIO | None, outlived: bool) -> TextIO:
    if stream is None:  # closed before Python began
        stream = Path(os.devnull).open("w")  # noqa: SIM115
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")
    return cast(TextIO, _Outlived(stream)) if outlived else stream
