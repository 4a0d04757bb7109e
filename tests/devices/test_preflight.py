"""Processes that meet are compared, and those that are missing or differ are named; here they are threads."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from jaxlm.config import DistributedConfig, ModelConfig
from jaxlm.config.models import CountsConfig, MlpConfig
from jaxlm.config.run import RunConfig
from jaxlm.devices import processes
from jaxlm.devices.processes import clusters, preflight
from jaxlm.errors import UserError
from tests.conftest import REPOSITORY

FACTS = {"jax": "0.10.2", "jaxlm": "0.1.0", "seed": 0}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def settings(process, processes=2, timeout=5.0, port=None, host="127.0.0.1"):
    coordinator = f"{host}:{port or free_port()}"
    return DistributedConfig(coordinator=coordinator, processes=processes, process=process, timeout=timeout)


def met(facts, *, absent=(), timeout=5.0, delay=0.0, processes=None):
    """What `meet` gives, or the error that it raises, in each process that is there, by number."""
    port = free_port()

    def one(process):
        time.sleep(delay * process)
        try:
            return preflight.meet(settings(process, len(facts), timeout, port), facts[process])
        except UserError as error:
            return str(error)

    there = [process for process in range(len(facts)) if process not in absent]
    with ThreadPoolExecutor(len(there)) as pool:
        return dict(zip(there, pool.map(one, there), strict=True))


def test_processes_that_agree_meet_and_exchange_values():
    channels = met([FACTS] * 3, delay=0.3)
    assert [channels[process].process for process in range(3)] == [0, 1, 2]
    assert all(channel.hosts == [socket.gethostname()] * 3 for channel in channels.values())
    with ThreadPoolExecutor(3) as pool:
        gathered = list(pool.map(lambda process: channels[process].gather({"n": process}), range(3)))
        shared = list(pool.map(lambda process: channels[process].share([process]), range(3)))
    assert gathered == [[{"n": 0}, {"n": 1}, {"n": 2}], None, None]
    assert shared == [[0]] * 3
    for process in (2, 1, 0):
        channels[process].leave()


def test_who_waits_for_a_process_that_has_ended_is_told():
    channels = met([FACTS] * 2)
    channels[1].leave()
    with pytest.raises(UserError, match=r"process 1 .* has ended already"):
        channels[0].gather(None)
    channels[0].leave()


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"jax": "0.10.3"}, "jax 0.10.3, not 0.10.2"),
        ({"jaxlm": "0.2.0"}, "jaxlm 0.2.0, not 0.1.0"),
        ({"seed": 1, "jaxlm": "0.2.0"}, "jaxlm 0.2.0, not 0.1.0; seed 1, not 0"),
        ({"model.class": "Own"}, "model.class Own, not None"),
    ],
)
def test_a_process_that_differs_is_named_to_all(other, told):
    found = met([FACTS, FACTS, {**FACTS, **other}])
    name = f"process 2 ({socket.gethostname()}): {told}"
    assert all(name in error for error in found.values()), found
    assert not any("process 1" in error for error in found.values())
    assert found[1] == found[2] == f"process 0 ({socket.gethostname()}): {found[0]}"


def test_a_process_that_is_missing_is_named_when_the_time_is_over():
    began = time.monotonic()
    found = met([FACTS] * 4, absent=(2,), timeout=1.0)
    assert time.monotonic() - began < 10
    assert all("after 1 s process 2 of 4 had not come" in error for error in found.values()), found
    assert set(found) == {0, 1, 3}


def test_the_first_process_that_is_missing_is_named_with_its_address(capsys):
    (error,) = met([FACTS] * 2, absent=(0,), timeout=0.6).values()
    assert "has not reached process 0 at distributed.coordinator '127.0.0.1:" in error
    assert "a loopback address, which only" in error


def test_a_coordinator_that_resolves_to_loopback_under_another_hosts_name_is_refused_at_once(monkeypatch):
    real = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *rest, **more: real("127.0.0.1", *rest, **more))
    began = time.monotonic()
    with pytest.raises(UserError, match=r"'node-a:.*' is a loopback address on .*, which process 1 is on"):
        preflight.meet(settings(1, timeout=60, host="node-a"), FACTS)
    assert time.monotonic() - began < 10


def test_a_loopback_address_is_told_while_process_0_is_awaited(monkeypatch, capsys):
    monkeypatch.setattr(preflight, "LATE", 0.1)
    met([FACTS] * 2, absent=(0,), timeout=0.6)
    assert capsys.readouterr().err.count("process 1 waits for process 0: distributed.coordinator '127.0.0.1:") == 1


def test_a_number_that_is_there_twice_is_named():
    port = free_port()

    def one(process):
        try:
            preflight.meet(settings(process, 3, 5.0, port), FACTS)
        except UserError as error:
            return str(error)

    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(one, (0, 1, 1)))
    assert "process 1 (" in found[0] and "is there twice" in found[0]


def test_a_stranger_at_the_port_is_passed_over(monkeypatch):
    monkeypatch.setattr(preflight, "STRANGER", 0.2)
    port, found = free_port(), dict[str, Any]()
    first = threading.Thread(target=lambda: found.update(a=preflight.meet(settings(0, port=port), FACTS)))
    first.start()
    strangers = []
    for content in (b"GET / HTTP/1.1\r\n\r\n", b'{"process": "1"}\n', b""):
        while True:
            try:
                strangers.append(socket.create_connection(("127.0.0.1", port)))
                break
            except ConnectionRefusedError:
                time.sleep(0.05)
        strangers[-1].sendall(content)
    found["b"] = preflight.meet(settings(1, port=port), FACTS)
    first.join()
    assert found["a"].processes == found["b"].processes == 2
    for end in (*strangers,):
        end.close()
    found["b"].leave()
    found["a"].leave()


DIES = """
import os, socket, sys, time
from jaxlm.config import DistributedConfig
from jaxlm.devices.processes import preflight
process, port, how = int(sys.argv[1]), sys.argv[2], sys.argv[3]
where = DistributedConfig(coordinator=f"127.0.0.1:{port}", processes=3, process=process, timeout=60.0)
channel = preflight.meet(where, {})
if process == 1:
    if how == "dies":
        os._exit(9)
    if how == "fails":
        channel.fail("data.path 'x' does not exist", 2)
        os._exit(2)
    channel.leave()
    sys.exit(0)
if how == "leaves":
    time.sleep(1)
    channel.leave()
    sys.exit(0)
time.sleep(60)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "codes", "told"),
    [
        ("dies", [1, 9, 1], "error: process 1 (HOST) died"),
        ("fails", [2, 2, 2], "error: process 1 (HOST): data.path 'x' does not exist"),
        ("leaves", [0, 0, 0], ""),
    ],
)
def test_all_processes_end_with_one_line_about_the_one_that_ended(how, codes, told):
    port = str(free_port())
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY), "JAX_PLATFORMS": "cpu"}
    started = [
        subprocess.Popen([sys.executable, "-c", DIES, str(n), port, how], env=env, stderr=subprocess.PIPE, text=True)
        for n in range(3)
    ]
    errors = [process.communicate(timeout=120)[1] for process in started]
    assert [process.returncode for process in started] == codes, errors
    for error in (errors[0], errors[2]):
        assert error.startswith(told.replace("HOST", socket.gethostname()))
        assert error.count("\n") == bool(told)
    assert errors[1] == ""


@pytest.mark.parametrize(
    ("environment", "launcher"),
    [
        ({}, None),
        ({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "1", "SLURM_STEP_NODELIST": "a", "SLURM_PROCID": "0"}, None),
        ({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "8"}, None),  # the batch script itself, outside srun
        ({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "8", "SLURM_STEP_NODELIST": "a[1-8]", "SLURM_PROCID": "3"}, "SLURM"),
        ({"OMPI_COMM_WORLD_SIZE": "1", "OMPI_MCA_orte_hnp_uri": "x"}, None),
        ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_MCA_orte_hnp_uri": "x"}, "Open MPI"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, None),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "0"}, "Kubernetes"),
    ],
)
def test_only_a_job_of_several_processes_is_detected(environment, launcher):
    assert clusters.launched_by(environment) == launcher


def test_slurm_gives_the_place(monkeypatch):
    slurm = {"JOB_ID": "7", "NTASKS": "8", "STEP_NODELIST": "node[03-10]", "PROCID": "3", "LOCALID": "1"}
    for name, value in slurm.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    place = clusters.place(DistributedConfig(timeout=9.0))
    assert place is not None
    assert place.settings == DistributedConfig(coordinator="node03:61447", processes=8, process=3, timeout=9.0)
    assert place.devices == [1]
    assert clusters.place(DistributedConfig(processes=1)) is None


def test_an_environment_without_a_coordinator_is_told(monkeypatch):
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "0")
    monkeypatch.setitem(sys.modules, "kubernetes", None)
    with pytest.raises(UserError, match=r"Kubernetes .*jax\[k8s\].*--distributed.processes 1"):
        clusters.place(DistributedConfig())


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (
            {"processes": 2},
            "distributed.coordinator and distributed.process must be given where distributed.processes 2",
        ),
        ({"coordinator": "a:1", "processes": 2}, "distributed.process must be given"),
        ({"coordinator": "a:1", "processes": 2, "process": 2}, "distributed.process wants a number from 0 to 1, got 2"),
        ({"coordinator": "a", "processes": 2, "process": 0}, "distributed.coordinator wants HOST:PORT"),
        ({"coordinator": "a:1", "processes": 1}, "distributed.coordinator a:1 has no effect with"),
        ({"processes": 0}, "distributed.processes wants a number >= 1, got 0"),
        ({"timeout": 0.0}, "distributed.timeout wants a number > 0"),
    ],
)
def test_settings_are_checked_together(given, error):
    with pytest.raises(UserError, match=error.replace(".", r"\.")):
        DistributedConfig(**given)


def test_an_address_of_ipv6_is_taken_apart():
    config = DistributedConfig(coordinator="[::1]:1234", processes=2, process=0)
    assert (config.host, config.port) == ("::1", 1234)


def test_facts_leave_out_what_is_a_processes_own():
    def facts(**changed):
        return processes._facts(RunConfig(model=MlpConfig(), steps=1, **changed), 2)

    assert facts() == facts(device="cpu", gpu_memory=0.5, distributed=DistributedConfig(timeout=9.0))
    assert facts() != facts(seed=1)
    assert json.loads(json.dumps(facts())) == facts()


def test_a_model_that_one_process_trains_is_refused_for_several():
    config = RunConfig(model=CountsConfig(), distributed=settings(0))
    with pytest.raises(UserError, match=r"distributed\.processes wants 1 for a CountsConfig"), processes.joined(config):
        pass
    assert issubclass(CountsConfig, ModelConfig) and processes.count() == 1
