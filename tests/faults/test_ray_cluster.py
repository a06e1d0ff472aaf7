"""A Ray cluster of two nodes on this machine: one of them is killed amid a study, and nothing is lost."""

import contextlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trans4init.reports.records.store import load_results

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed"),
]


AUTHENTICATION = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 2}
"""Newer versions of Ray ask for a token, which is in the home folder of whoever started the cluster, or here."""


def descendants(pid):
    """A process and all below it."""
    found = [pid]
    for parent in found:
        for path in Path(f"/proc/{parent}/task").glob("*/children"):
            found += [int(word) for word in path.read_text().split()]
    return found


class Cluster:
    """A head without cores, and nodes with one core each."""

    def __init__(self, folder):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        self.folder, self.nodes = folder, []
        self.head = self._start("--head", "--port", self.address.rpartition(":")[2], "--num-cpus", "0")

    def _start(self, *words):
        """Start a node and wait for it: on a busy machine two that start at once give up."""
        ray, log = Path(sys.executable).with_name("ray"), self.folder / f"node-{len(self.nodes)}.log"
        node = subprocess.Popen(
            [ray, "start", "--block", "--disable-usage-stats", *words],
            stdout=log.open("w"),
            stderr=subprocess.STDOUT,
            env=os.environ | AUTHENTICATION | {"RAY_task_oom_retries": "0"},
            start_new_session=True,
        )
        self.nodes.append(node)
        wait_for(lambda: "Ray runtime started" in log.read_text() or node.poll() is not None)
        assert node.poll() is None, log.read_text()
        return node

    def add_node(self):
        return self._start("--address", self.address, "--num-cpus", "1")

    @staticmethod
    def kill(node):
        for pid in descendants(node.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        node.wait(timeout=60)


@pytest.fixture
def cluster(tmp_path):
    made = Cluster(tmp_path)
    yield made
    for node in reversed(made.nodes):
        made.kill(node)


def results(folder):
    return folder / "runs" / "tiny" / "results"


def wait_for(condition, seconds=120.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)


def values(folder):
    """What the runs found, without what clocks measured."""
    timed = ("s", "µs", "tokens/s")
    return {
        record.run_id: [(m.metric.name, m.step, m.value) for m in record.measurements if m.metric.unit not in timed]
        for record in load_results(results(folder)).records
        if record.phase != "throughput"
    }


def test_a_node_that_is_killed_loses_nothing(cluster, finished_study, tiny_study, command, tmp_path):
    first, _ = cluster.add_node(), cluster.add_node()
    process = command("run", tiny_study(), "--executor", "ray", "--address", cluster.address, **AUTHENTICATION)
    wait_for(lambda: len(list(results(tmp_path).glob("tune-*"))) >= 1 or process.poll() is not None)
    cluster.kill(first)
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 0, output
    records = load_results(results(tmp_path)).records
    assert len({record.run_id for record in records}) == len(records) == 27
    assert {record.status for record in records} == {"ok"}
    assert values(tmp_path) == values(finished_study.folder)


def test_a_command_that_is_interrupted_goes_on_elsewhere(
    cluster, finished_study, tiny_study, command, run_command, tmp_path
):
    """Ctrl-C lets runs on the cluster finish; the same study goes on in processes of this machine."""
    cluster.add_node()
    study = tiny_study()
    process = command("run", study, "--executor", "ray", "--address", cluster.address, **AUTHENTICATION)
    wait_for(lambda: len(list(results(tmp_path).glob("tune-*"))) >= 2 or process.poll() is not None)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 130, output
    code, output = run_command("run", study)
    assert code == 0, output
    assert values(tmp_path) == values(finished_study.folder)


def test_a_cluster_that_does_not_answer_is_one_sentence(tiny_study, run_command):
    code, output = run_command("run", tiny_study(), "--executor", "ray", "--address", "127.0.0.1:9")
    assert code == 2
    assert "no Ray cluster can be used at 127.0.0.1:9" in output
    assert output.splitlines()[-1].startswith("trans4init: no Ray cluster")
