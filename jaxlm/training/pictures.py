"""A run's pictures, drawn beside the training."""

import sys
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from jaxlm.data.corpus import Corpus

SWITCH_SECONDS = 5e-4
"""How long the thread that trains waits for the one that draws to let go of the interpreter."""


class Pictures:
    """The data's pairs and, at the end, the loss curve.

    Drawing takes as long as thousands of steps and tracing a program needs the interpreter too, so the pairs are drawn
    by a thread that begins once the training's program runs.
    """

    def __init__(self, corpus: Corpus, directory: Path):
        directory.mkdir(exist_ok=True)
        self._corpus, self._directory = corpus, directory
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="pictures")
        self._pairs: Future[None] | None = None
        self._losses: Future[None] | None = None

    def begin(self) -> None:
        """Start to draw the pairs, unless that has begun."""
        if self._pairs is None:
            sys.setswitchinterval(SWITCH_SECONDS)
            self._pairs = self._thread.submit(self._draw_pairs)

    def draw_losses(self, lines: Sequence[dict[str, Any]]) -> None:
        """Draw the loss curve of these lines of metrics.jsonl after the pairs."""
        self.begin()
        self._losses = self._thread.submit(self._draw_losses, lines)

    def wait(self) -> None:
        """Return when all is drawn."""
        for drawing in (self._pairs, self._losses):
            if drawing:
                drawing.result()
        self._thread.shutdown()

    def _draw_losses(self, lines: Sequence[dict[str, Any]]) -> None:
        from jaxlm import plots

        plots.loss_curve(lines, self._directory / "loss.png")

    def _draw_pairs(self) -> None:
        from jaxlm import plots

        plots.bigram_table(self._corpus, self._directory / "bigrams.png")
        plots.frequent_pairs(self._corpus, self._directory / "pairs.png")
