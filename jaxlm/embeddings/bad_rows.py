"""Rows of a file of vectors that cannot be used: the first is an error, or all are left out and reported."""

from collections.abc import Callable

from jaxlm.errors import UserError

LISTED = 3
"""Most rows that a report names."""


class BadRows:
    """The bad rows of one file, in their order."""

    def __init__(self, name: str, *, skip: bool):
        self.count = 0
        self._name, self._skip = name, skip
        self._first: list[str] = []
        self._contradiction: str | None = None

    def add(self, reason: str) -> None:
        """Leave a row out for a reason that begins with its place. Raises UserError with it unless rows are skipped."""
        if not self._skip:
            raise UserError(
                f"{self._name}, {reason} (sample.py --skip-bad-rows leaves such rows out, in Python skip_bad_rows=True)"
            )
        self.count += 1
        if self.count <= LISTED:
            self._first.append(reason)

    def check_count(self, promised: int, found: int) -> None:
        """Compare the number of rows with line 1. Raises UserError for another unless rows are skipped."""
        if promised != found:
            self._contradiction = f"{self._name}, line 1 promises {promised} words, the file has {found}"
            if not self._skip:
                raise UserError(self._contradiction)

    def report(self, log: Callable[[str], None]) -> None:
        """Log how many rows were left out, and the first of them."""
        if self._contradiction:
            log(self._contradiction)
        if self.count:
            rows = "1 bad row is" if self.count == 1 else f"{self.count:,} bad rows are"
            more = [f"and {self.count - LISTED:,} more"] if self.count > LISTED else []
            log(f"{self._name}: {rows} left out: {'; '.join([*self._first, *more])}")
