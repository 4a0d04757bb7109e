"""The samples of a run: their program is compiled beside the training, once the scores' is."""

from typing import Any

import pytest

from jaxlm.config import EvalConfig, SampleConfig
from jaxlm.training import language, samples


@pytest.fixture
def order(monkeypatch) -> list[str]:
    """What a training does, in order: scores, the compilation of samples, samples."""
    done: list[str] = []

    def watch(module: Any, name: str) -> None:
        real = getattr(module, name)

        def watched(*args: Any) -> Any:
            result = real(*args)
            done.append(name)
            return result

        monkeypatch.setattr(module, name, watched)

    watch(language, "_scores")
    watch(language, "compile_samples")
    watch(samples, "_draw")
    return done


def test_samples_are_compiled_once_after_the_first_scores(make_run, order):
    make_run(steps=6, eval=EvalConfig(every=1), sample=SampleConfig(n=3))
    assert order[0] == "_scores" and order.count("compile_samples") == 1 and order.count("_scores") > 3
    assert order.index("_draw") < order.index("compile_samples")  # it draws from zeros
    assert order.count("_draw") == 3 and order[-2:] == ["_draw", "_draw"]


def test_no_sample_is_compiled_where_none_is_wanted(make_run, order):
    make_run(steps=2, sample=SampleConfig(n=0))
    assert "_draw" not in order
