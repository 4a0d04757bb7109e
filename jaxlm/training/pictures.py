"""A run's pictures, drawn beside the training."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from jaxlm.runs.directory import RunDir

PACKAGES = str(Path(__file__).resolve().parents[2])
"""Where the process that draws finds this package, installed or not."""
DRAW = "from jaxlm.plots import __main__ as m; m.run_main(m.draw_beside_training)"
NICE = 19
"""Of the process that draws, which takes what the training and the threads beside it leave of the cores."""


class Pictures:
    """What a kind of model shows, and the loss curve, drawn by a process of its own (`DRAW`).

    Drawing takes as long as tens of thousands of steps, and a thread that draws would hold the interpreter that trains.
    A context manager: the process begins as it is entered, to import while there is nothing to draw yet; leaving it
    before `end` stops the drawing.
    """

    def __init__(self, run: RunDir, *, wanted: bool):
        self._run, self._wanted = run, wanted
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> "Pictures":
        if self._wanted:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", DRAW, str(self._run.path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                env={**os.environ, "PYTHONPATH": os.pathsep.join([PACKAGES, *filter(None, [os.getenv("PYTHONPATH")])])},
                process_group=0,  # Ctrl-C is for the training; in a session of its own it would not be nice to it
            )
            with contextlib.suppress(ProcessLookupError):  # it has failed already, which `end` tells
                os.setpriority(os.PRIO_PROCESS, self._process.pid, NICE)
        return self

    def __exit__(self, *error: object) -> None:
        if self._process:
            self._process.kill()
            self._process.communicate()

    def draw(self, save: Callable[[], None]) -> None:
        """Draw what `save` writes into plots/."""
        if self._process:
            self._run.plots.mkdir(exist_ok=True)
            save()
            self._tell("what is to be shown is written")

    def draw_losses(self) -> None:
        """Draw the loss curve, after the rest: metrics.jsonl is written."""
        self._tell("all losses are written")

    def _tell(self, what: str) -> None:
        if self._process and self._process.stdin:
            with contextlib.suppress(BrokenPipeError):  # it has failed, which `end` tells
                self._process.stdin.write(f"{what}\n")
                self._process.stdin.flush()

    def end(self, log: Callable[[str], None]) -> None:
        """Return when all is drawn. A picture that cannot be drawn costs no training: it is told."""
        if self._process:
            _, told = self._process.communicate()
            if self._process.returncode:
                why = (told.strip() or "no reason given").splitlines()[-1]
                log(f"the pictures were not all drawn ({why}): python -m jaxlm.plots {self._run.path} draws them")
            self._process = None
