"""examples/launch: scripts in which shellcheck finds no fault, and what they start where."""

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import processes
from tests.conftest import REPOSITORY

LAUNCH = REPOSITORY / "examples" / "launch"
SCRIPTS = sorted(LAUNCH.glob("*.sh"))
SHELLCHECK = shutil.which("shellcheck") or shutil.which("shellcheck", path=str(Path(sys.executable).parent))

SSH = """\
#!/usr/bin/env bash
# ssh -o BatchMode=yes HOST COMMAND, on this machine
echo "$3" >> "$SSH_LOG"
exec bash -c "$4"
"""
RECORD = """\
import json, os, signal, sys, time
process = sys.argv[-1]
if "--wait" in sys.argv:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
with open(os.environ["CALLS"] + process, "w") as file:
    json.dump([os.getcwd(), sys.argv], file)
if "--wait" in sys.argv:
    end = time.monotonic() + 60
    while time.monotonic() < end and not os.path.exists(os.environ["CALLS"] + "ended"):
        time.sleep(0.05)
sys.exit(2 if "--fail" + process in sys.argv else 0)
"""
"""A train.py that writes down how it was called."""

JOBSET = {"failurePolicy", "network", "replicatedJobs", "startupPolicy", "successPolicy", "suspend", "coordinator"}
"""Fields of a JobSet's spec, by its reference (v1alpha2); likewise those of its parts."""
JOBSET_RULE = {"name", "action", "onJobFailureReasons", "targetReplicatedJobs"}
JOBSET_ACTIONS = {"FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts"}
REPLICATED_JOB = {"name", "template", "replicas", "dependsOn", "groupName"}
FAILURE_REASONS = {
    "BackoffLimitExceeded",
    "DeadlineExceeded",
    "FailedIndexes",
    "MaxFailedIndexesExceeded",
    "PodFailurePolicy",
}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_shellcheck_finds_nothing(script: Path):
    if SHELLCHECK is None:
        pytest.skip("wants shellcheck")
    done = subprocess.run([SHELLCHECK, str(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert os.access(script, os.X_OK)


@pytest.fixture
def nodes(tmp_path: Path) -> dict[str, str]:
    """The environment of a launch: an ssh that stays on this machine, and a train.py that is a recorder."""
    commands = tmp_path / "bin"
    commands.mkdir()
    (commands / "ssh").write_text(SSH)
    (commands / "ssh").chmod(0o755)
    (tmp_path / "work dir").mkdir()
    (tmp_path / "work dir" / "train.py").write_text(RECORD)
    return os.environ | {
        "PATH": f"{commands}:{os.environ['PATH']}",
        "SSH_LOG": str(tmp_path / "hosts"),
        "CALLS": str(tmp_path / "call"),
        "DIRECTORY": str(tmp_path / "work dir"),
        "PYTHON": sys.executable,
    }


def call(nodes: dict[str, str], process: int) -> tuple[str, list[str]]:
    directory, args = json.loads(Path(f"{nodes['CALLS']}{process}").read_text())
    return directory, args


def test_ssh_starts_a_process_on_each_host_with_its_number(nodes):
    command = [str(LAUNCH / "ssh.sh"), "node1 node2", "configs/a.py", "--data.path", "two words", "--sweep.x", "$HOME"]
    done = subprocess.run(command, env=nodes, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    for process in (0, 1):
        directory, args = call(nodes, process)
        assert directory == nodes["DIRECTORY"]
        assert args[1:6] == ["configs/a.py", "--data.path", "two words", "--sweep.x", "$HOME"]
        expected = f"--distributed.coordinator node1:8476 --distributed.processes 2 --distributed.process {process}"
        assert args[6:] == expected.split()
    hosts = Path(nodes["SSH_LOG"]).read_text().split()
    assert sorted(hosts) == ["node1", "node1", "node2"]  # the last one removes the file of the process's number


def test_ssh_ends_with_the_exit_code_of_a_process_that_failed(nodes):
    command = [str(LAUNCH / "ssh.sh"), "node1 node2", "configs/a.py", "--fail1"]
    assert subprocess.run(command, env=nodes | {"PORT": "1234"}, timeout=60).returncode == 2
    assert "node1:1234" in call(nodes, 0)[1]


def test_a_signal_to_the_launcher_reaches_the_first_process(nodes):
    command = [str(LAUNCH / "ssh.sh"), "node1 node2", "configs/a.py", "--wait"]
    launcher = subprocess.Popen(command, env=nodes)
    until = time.monotonic() + 60
    while not all(Path(f"{nodes['CALLS']}{process}").exists() for process in (0, 1)):
        assert time.monotonic() < until, launcher.poll()
        time.sleep(0.05)
    launcher.send_signal(signal.SIGTERM)
    while Path(nodes["SSH_LOG"]).read_text().count("node1") != 2:
        assert time.monotonic() < until
        time.sleep(0.05)
    assert launcher.poll() is None  # the other process has not ended
    Path(f"{nodes['CALLS']}ended").touch()
    assert launcher.wait(60) == 143


@pytest.mark.slow
def test_ssh_trains_one_run_in_two_processes(nodes, tmp_path_factory):
    """Twelve steps on two processes of this machine, which stand for two hosts."""
    cli = processes.cli(tmp_path_factory)
    out = cli.base / "run"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    env = cli.env | {name: nodes[name] for name in ("PATH", "SSH_LOG", "PYTHON")} | {"PORT": port}
    command = [str(LAUNCH / "ssh.sh"), "127.0.0.1 localhost", str(cli.config), "--steps", "12", "--run-dir", str(out)]
    done = subprocess.run(
        command, env=env, cwd=REPOSITORY, capture_output=True, text=True, timeout=processes.SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "devices: cpu (2 x cpu)" in done.stdout
    assert json.loads((out / "eval.json").read_text())["step"] == 12
    assert done.stdout.count("step 12 of 12") == 1  # the first process alone prints


def test_ssh_without_hosts_is_a_line(nodes):
    done = subprocess.run([str(LAUNCH / "ssh.sh")], env=nodes, capture_output=True, text=True)
    assert done.returncode and "hosts want a list" in done.stderr and len(done.stderr.splitlines()) == 1


def test_tpu_pod_passes_the_arguments_on_to_all_workers(nodes, tmp_path):
    gcloud = tmp_path / "bin" / "gcloud"
    gcloud.write_text('#!/usr/bin/env bash\nprintf "%s\\n" "${@:1:$#-1}" >> "$SSH_LOG"\nexec bash -c "${@: -1}"\n')
    gcloud.chmod(0o755)
    command = [str(LAUNCH / "tpu_pod.sh"), "pod", "europe-west4-b", "configs/a.py", "--data.path", "two words"]
    done = subprocess.run(command, env=nodes, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    expected = "compute tpus tpu-vm ssh pod --zone europe-west4-b --worker=all --command"
    assert Path(nodes["SSH_LOG"]).read_text().split() == expected.split()
    assert json.loads(Path(f"{nodes['CALLS']}two words").read_text())[1][1:] == command[3:]


@pytest.mark.parametrize(("code", "cancel", "requeued"), [(0, False, False), (143, False, True), (143, True, False)])
def test_slurm_puts_a_job_that_saved_into_the_queue_again(nodes, tmp_path, code, cancel, requeued):
    """`srun` and `scontrol` are stand-ins; a cancelled job's script gets SIGTERM too."""
    (tmp_path / "bin" / "srun").write_text(
        f'#!/bin/bash\necho "srun $*" >> "$SSH_LOG"\n{"kill -TERM $PPID" if cancel else ""}\nexit {code}\n'
    )
    (tmp_path / "bin" / "scontrol").write_text('#!/bin/bash\necho "scontrol $*" >> "$SSH_LOG"\n')
    for name in ("srun", "scontrol"):
        (tmp_path / "bin" / name).chmod(0o755)
    command = [str(LAUNCH / "slurm.sh"), "configs/a.py", "--data.path", "two words"]
    done = subprocess.run(command, env=nodes | {"SLURM_JOB_ID": "7"}, capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stderr
    told = Path(nodes["SSH_LOG"]).read_text().splitlines()
    assert told[0] == "srun --kill-on-bad-exit=1 python train.py configs/a.py --data.path two words"
    assert told[1:] == (["scontrol requeue 7"] if requeued else [])


@pytest.fixture
def jobset() -> dict[str, Any]:
    return yaml.safe_load((LAUNCH / "jobset.yaml").read_text())


def test_the_jobset_has_fields_that_there_are_and_as_many_processes_as_pods(jobset):
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    spec = jobset["spec"]
    assert set(spec) <= JOBSET and set(spec["failurePolicy"]) <= {"maxRestarts", "rules"}
    for rule in spec["failurePolicy"]["rules"]:
        assert set(rule) <= JOBSET_RULE and rule["action"] in JOBSET_ACTIONS
        assert set(rule["onJobFailureReasons"]) <= FAILURE_REASONS
    (group,) = spec["replicatedJobs"]
    assert set(group) <= REPLICATED_JOB and group["replicas"] == 1
    job = group["template"]["spec"]
    (container,) = job["template"]["spec"]["containers"]
    words = container["command"][2].split()
    name = jobset["metadata"]["name"]
    assert f"{name}-{group['name']}-0-0.{name}:{container['ports'][0]['containerPort']}" in words
    assert words[words.index("--distributed.processes") + 1] == str(job["completions"]) == str(job["parallelism"])
    assert job["podFailurePolicy"]["rules"][0]["onExitCodes"]["containerName"] == container["name"]
    devices = int(container["resources"]["limits"]["nvidia.com/gpu"]) * job["completions"]
    sizes = [int(words[words.index(f"--mesh.{axis}") + 1]) for axis in ("data", "fsdp")]
    assert devices == sizes[0] * sizes[1]


def test_the_jobs_template_is_that_of_a_kubernetes_job(jobset):
    if importlib.util.find_spec("kubernetes_validate") is None:
        pytest.skip("wants kubernetes-validate")
    import kubernetes_validate

    job: dict[str, Any] = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "hosts"}}
    job["spec"] = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
    kubernetes_validate.validate(job, kubernetes_validate.latest_version(), strict=True)
    job["spec"]["template"]["spec"]["containers"][0]["volumeMount"] = []
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(job, kubernetes_validate.latest_version(), strict=True)
