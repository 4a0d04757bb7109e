"""Counters and histograms in Prometheus' text format."""

import bisect
from collections.abc import Callable, Iterable

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
TOKEN_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)


class Counter:
    """A number that grows, for each set of labels."""

    def __init__(self, name: str, about: str, *labels: str):
        self._name, self._about, self._labels = name, about, labels
        self._values: dict[tuple[str, ...], float] = {}

    def add(self, *values: str, by: float = 1) -> None:
        """Add to the number of these labels' values."""
        self._values[values] = self._values.get(values, 0) + by

    def lines(self) -> Iterable[str]:
        """The metric as text."""
        yield from _head(self._name, self._about, "counter")
        for values, number in sorted(self._values.items()):
            yield f"{self._name}{_labels(zip(self._labels, values, strict=True))} {number:g}"


class Histogram:
    """How often a number of seconds was at most each of some bounds, and their sum, for each model."""

    def __init__(self, name: str, about: str, bounds: tuple[float, ...]):
        self._name, self._about, self._bounds = name, about, bounds
        self._counts: dict[str, list[int]] = {}
        self._sums: dict[str, float] = {}

    def observe(self, model: str, seconds: float) -> None:
        """Count a number of seconds."""
        counts = self._counts.setdefault(model, [0] * (len(self._bounds) + 1))
        counts[bisect.bisect_left(self._bounds, seconds)] += 1
        self._sums[model] = self._sums.get(model, 0.0) + seconds

    def lines(self) -> Iterable[str]:
        """The metric as text."""
        yield from _head(self._name, self._about, "histogram")
        for model, counts in sorted(self._counts.items()):
            total = 0
            for bound, count in zip((*map(str, self._bounds), "+Inf"), counts, strict=True):
                total += count
                yield f"{self._name}_bucket{_labels([('model', model), ('le', bound)])} {total}"
            yield f"{self._name}_sum{_labels([('model', model)])} {self._sums[model]:.6f}"
            yield f"{self._name}_count{_labels([('model', model)])} {total}"


class Gauge:
    """A number that is asked for when the metrics are, for each model."""

    def __init__(self, name: str, about: str, values: Callable[[], Iterable[tuple[str, float]]]):
        self._name, self._about, self._values = name, about, values

    def lines(self) -> Iterable[str]:
        """The metric as text."""
        yield from _head(self._name, self._about, "gauge")
        for model, number in self._values():
            yield f"{self._name}{_labels([('model', model)])} {number:g}"


def _head(name: str, about: str, kind: str) -> Iterable[str]:
    yield f"# HELP {name} {about}"
    yield f"# TYPE {name} {kind}"


def _labels(pairs: Iterable[tuple[str, str]]) -> str:
    escaped = ((name, value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")) for name, value in pairs)
    inside = ",".join(f'{name}="{value}"' for name, value in escaped)
    return f"{{{inside}}}" if inside else ""
