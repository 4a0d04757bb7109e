"""Compile options that XLA has are taken, others left out; the cache of compiled programs hits and is bounded."""

import json
import os
import subprocess
import sys

import jax
import pytest

from jaxlm.devices import compilation, platform
from jaxlm.devices.mesh import make_mesh
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.usefixtures("users_options")

COMPILE = """
import json, os, sys
from pathlib import Path
import jax
from jaxlm.devices import compilation

count = {"hits": 0, "misses": 0}
def listen(event, **_):
    for name in count:
        if event == f"/jax/compilation_cache/cache_{name}":
            count[name] += 1
jax.monitoring.register_event_listener(listen)
cache = Path(sys.argv[1])
compilation.CACHE_BYTES = int(sys.argv[2])
compilation.enable_cache(cache)
left = sorted(path.name for path in (cache / "compiled").glob("*-cache")) if cache.exists() else []
for n in range(3):
    jax.jit(lambda x: x * n + 1)(jax.numpy.arange(4.0))
now = sorted(path.name for path in (cache / "compiled").glob("*-cache"))
print(json.dumps({**count, "left": left, "now": now}))
"""


def compile_in_a_process(cache, most_bytes=2**30):
    """What a process finds and leaves in the cache, with its hits and misses."""
    env = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    env |= {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", COMPILE, str(cache), str(most_bytes)]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_a_second_process_compiles_nothing_and_a_full_cache_is_cut(tmp_path):
    first = compile_in_a_process(tmp_path)
    assert first["left"] == []
    assert first["misses"] >= 3
    second = compile_in_a_process(tmp_path)
    assert second["misses"] == 0
    assert second["hits"] == first["misses"] + first["hits"]
    assert second["left"] == second["now"] == first["now"]
    size = sum(path.stat().st_size for path in (tmp_path / "compiled").glob("*-cache"))
    third = compile_in_a_process(tmp_path, size // 2)
    assert 0 < len(third["left"]) < len(second["now"])


def test_the_programs_used_longest_ago_are_removed_first(tmp_path):
    for age, name in enumerate(["new-cache", "read-cache", "old-cache", "older-cache"]):
        path = tmp_path / name
        path.write_bytes(bytes(100))
        os.utime(path, (1000 - age, 1000 - age))
    os.utime(tmp_path / "read-cache", (2000, 10))  # written first, read last
    (tmp_path / "foreign").write_bytes(bytes(1000))
    compilation.remove_least_recent(tmp_path, 250)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["foreign", "new-cache", "read-cache"]
    compilation.remove_least_recent(tmp_path, 250)
    assert len(list(tmp_path.iterdir())) == 3
    compilation.remove_least_recent(tmp_path / "absent", 0)


def test_the_kind_of_device_is_among_what_numbers_depend_on():
    assert platform.numerics()["device_kind"] == jax.devices()[0].device_kind


def all_options() -> list[compilation.Options]:
    """For every kind of program there is on a CPU."""
    few = [jax.numpy.zeros(3)]
    samples = [compilation.sampling_options(few, compilation.FEW_SAMPLES + more) for more in (0, 1)]
    return [compilation.step_options(make_mesh()), compilation.drawing_options(few), *samples]


def test_xla_takes_every_option_of_every_program():
    options = all_options()
    assert all("xla_backend_optimization_level" in one for one in options)
    assert [compilation._accepted(**one) for one in options] == options


def test_options_that_a_release_has_dropped_are_left_out(monkeypatch):
    monkeypatch.setattr(jax, "__version_info__", (0, 11, 0))
    before = all_options()
    monkeypatch.setattr(jax, "__version_info__", (0, 11, 1))
    for name in compilation.DROPPED:
        assert any(name in one for one in before) and not any(name in one for one in all_options())


def test_a_newer_xla_is_asked_for_its_options(monkeypatch):
    known = {"xla_backend_optimization_level": 1, "xla_cpu_parallel_codegen_split_count": 1}
    unknown = {"xla_cpu_gone": True, **known, "xla_cpu_also_gone": 3}
    assert compilation._known(**unknown) == unknown
    monkeypatch.setattr(jax, "__version_info__", compilation.UNTESTED)
    assert compilation._known(**unknown) == compilation._known(**known) == known
    assert compilation._known(xla_cpu_gone=True) == {}


def test_an_option_of_a_wrong_value_is_a_mistake_of_ours():
    with pytest.raises(jax.errors.JaxRuntimeError):
        compilation._accepted(xla_cpu_parallel_codegen_split_count="many")
