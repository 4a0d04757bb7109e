"""Start and end of a command: signals, exit codes, output streams, and one line for a user's mistake.

Quickly imported: until `exit_codes` is entered, Ctrl-C ends in a traceback.
"""

import contextlib
import errno
import gc
import io
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn, TextIO, cast

from jaxlm.errors import REFUSED_PATHS, NonFiniteLoss, UserError, is_out_of_memory, one_line

EXIT_USER, EXIT_NON_FINITE = 2, 3
ALLOCATIONS_BETWEEN_COLLECTIONS = 1_000_000
"""Python's 700 costs a tenth of the time that imports and tracing take, 100,000 still 50 ms."""
LONGEST_REASON = 200
"""Most characters of XLA's message that an error repeats."""
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""Characters that move, colour or reorder what a terminal shows; tabs and line ends stay."""


class Terminated(SystemExit):
    """SIGTERM arrived after `raise_on_signals`; its code is 143."""


def run_main(main: Callable[[list[str]], int]) -> NoReturn:
    """Call main with the process's arguments and exit with the code that it returns, or that its error has."""
    with exit_codes():
        sys.exit(main(sys.argv[1:]))


@contextlib.contextmanager
def exit_codes(*, ignore_write_errors: bool = False) -> Iterator[None]:
    """Run a command within, and exit: its errors become one line on stderr and the contract's exit code.

    UserError and a lack of memory give 2, NonFiniteLoss 3, Ctrl-C 130, sys.exit its code, and the end 0. Characters
    that the terminal does not have are escaped; what nobody reads of stderr is dropped. With ignore_write_errors the
    command goes on where nobody reads its output any more, or the disk that takes it is full, and until it calls
    `raise_on_signals` a signal ends it at once: for commands whose results are files.
    """
    if ignore_write_errors:
        _exit_on_signals()
    else:
        raise_on_signals()
    gc.set_threshold(ALLOCATIONS_BETWEEN_COLLECTIONS)
    sys.stdout, sys.stderr = _output(sys.stdout, ignore_write_errors), _output(sys.stderr, True)
    try:
        try:
            yield
        except Terminated:
            raise
        except SystemExit:
            sys.stdout.flush()
            raise
        sys.stdout.flush()
        code = 0
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        leave(128 + signal.SIGINT)
    except Terminated:
        leave(128 + signal.SIGTERM)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except UserError as error:
        print(f"error: {escape_controls(one_line(str(error)))}", file=sys.stderr)
        code = EXIT_USER
    except NonFiniteLoss as error:
        print(f"error: {escape_controls(one_line(str(error)))}", file=sys.stderr)
        code = EXIT_NON_FINITE
    except BrokenPipeError:
        sys.stderr.close()
        code = 0
    except OSError as error:
        if error.errno == errno.ENOSPC:
            _discard(sys.stdout)
            print(f"error: the output cannot be written: {error.strerror}", file=sys.stderr)
        elif error.filename is not None and error.errno in REFUSED_PATHS:
            print(f"error: {str(error.filename)!r} cannot be used: {error.strerror}", file=sys.stderr)
        else:
            raise
        code = EXIT_USER
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        reason = escape_controls(str(error).partition("\n")[0][:LONGEST_REASON]) or "no more is there"
        print(f"error: not enough memory ({reason}): take a smaller batch, model or number of samples", file=sys.stderr)
        code = EXIT_USER
    gc.freeze()  # at the end nothing is worth a search for cycles
    sys.exit(code)


def show(text: str, *, end: str = "\n", file: TextIO | None = None) -> None:
    """Print a text at once; on a terminal its control characters are escaped, in a file or pipe it stays as it is.

    For texts with parts that we did not write: samples, words, lines of data, names of files.
    """
    stream = sys.stdout if file is None else file
    print(escape_controls(text) if stream.isatty() else text, end=end, file=stream, flush=True)


def escape_controls(text: str) -> str:
    r"""Write control characters as Python does: "\x1b" for the one that begins a terminal's commands."""
    return CONTROLS.sub(lambda found: repr(found[0])[1:-1], text)


def raise_on_signals() -> None:
    """Make SIGINT raise KeyboardInterrupt and SIGTERM raise Terminated, so that open work is closed in order."""

    def terminate(signum: int, frame: Any) -> NoReturn:
        raise Terminated(128 + signum)

    signal.signal(signal.SIGTERM, terminate)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def leave(code: int) -> NoReturn:
    """Exit at once, without Python's own shutdown: threads of libraries may be at work, and crash in it."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(code)


def _exit_on_signals() -> None:
    """Make SIGINT and SIGTERM end the process at once: an exception while libraries are imported is swallowed there,
    or ends in a crash of the library's own.
    """
    for signum in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(signum) is not signal.SIG_IGN:
            signal.signal(signum, lambda signum, frame: os._exit(128 + signum))


class _IgnoresWriteErrors:
    """A stream that ignores write errors: text that cannot be written is discarded."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        """Write the text where the stream can."""
        try:
            return self._stream.write(text)
        except OSError:
            _discard(self._stream)
            return len(text)

    def flush(self) -> None:
        """Flush where the stream can."""
        try:
            self._stream.flush()
        except OSError:
            _discard(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _discard(stream: TextIO) -> None:
    """Discard what a stream has buffered, and all that is written to it from now on."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _output(stream: TextIO | None, ignore_write_errors: bool) -> TextIO:
    if stream is None:  # closed before Python began
        stream = Path(os.devnull).open("w")  # noqa: SIM115
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")
    return cast(TextIO, _IgnoresWriteErrors(stream)) if ignore_write_errors else stream
