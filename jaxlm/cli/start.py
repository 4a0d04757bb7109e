"""How a command starts and ends: signals, exit codes, and one line for a mistake."""

import gc
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

from jaxlm.cli.parsing import one_line
from jaxlm.errors import NonFiniteLoss, UserError

EXIT_USER, EXIT_NON_FINITE = 2, 3
ALLOCATIONS_BETWEEN_COLLECTIONS = 1_000_000
"""Python's 700 costs a tenth of the time that imports and tracing take, 100,000 still 50 ms."""


def run_main(main: Callable[[list[str]], int]) -> NoReturn:
    """Call main with the arguments and exit as the contract says: a user's mistake is one line and code 2."""
    signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(128 + signum))
    gc.set_threshold(ALLOCATIONS_BETWEEN_COLLECTIONS)
    try:
        code = main(sys.argv[1:])
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        code = 128 + signal.SIGINT
    except UserError as error:
        print(f"error: {one_line(str(error))}", file=sys.stderr)
        code = EXIT_USER
    except NonFiniteLoss as error:
        print(f"error: {one_line(str(error))}", file=sys.stderr)
        code = EXIT_NON_FINITE
    except BrokenPipeError:
        sys.stderr.close()
        code = 0
    gc.freeze()  # at the end nothing is worth a search for cycles
    sys.exit(code)
