"""Trials on a cluster of several nodes on this machine, one of which is killed."""

from __future__ import annotations

import json
import threading
import time

import pytest

import qm

ray = pytest.importorskip("ray", reason="ray is not installed")

ENOUGH_DB = 11.6


@pytest.fixture(scope="module")
def cluster():
    """A head that carries out nothing, and three nodes of one core each."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes = [made.add_node(num_cpus=1) for _ in range(3)]
    ray.init(address=made.address, log_to_driver=False, logging_level="error")
    yield made, nodes
    ray.shutdown()
    made.shutdown()


def keys(work) -> list[str]:
    lines = (work / "net.tune/trials.jsonl").read_text().splitlines()[1:]
    return [json.loads(line)["key"] for line in lines]


def test_a_node_that_is_killed_in_the_middle_costs_no_trial(work, once, cluster, monkeypatch):
    made, nodes = cluster
    at_kill: list[int] = []
    monkeypatch.setenv("QM_GRID_SLEEP", "0.7")
    monkeypatch.setenv("QM_GRID_FOLDER", str(work))

    def kill() -> None:
        journal = work / "net.tune/trials.jsonl"
        end = time.monotonic() + 120
        while not journal.exists() or len(journal.read_text().splitlines()) < 4:
            assert time.monotonic() < end
            time.sleep(0.05)
        at_kill.append(len(keys(work)))
        made.remove_node(nodes.pop(), allow_graceful=False)

    killer = threading.Thread(target=kill)
    killer.start()
    found = qm.tune("net.toy", data="data.npz", min_sqnr_db=ENOUGH_DB, executor="ray", workers=3)
    killer.join()
    _, alone = once
    assert len(nodes) == 2
    assert found.reached and found.finished and not found.failed and not found.untried
    assert found.executor == "3 Ray workers of 1 thread each"
    # Of three nodes with one core each, the one that was killed had one of the three workers.
    assert found.lost_workers >= 1
    assert found.trials > at_kill[0]
    assert [(p.name, p.nbytes, p.sqnr_db) for p in found.front] == [(p.name, p.nbytes, p.sqnr_db) for p in alone.front]
    assert len(keys(work)) == len(set(keys(work))) == found.trials
    again = qm.tune("net.toy", data="data.npz", min_sqnr_db=ENOUGH_DB, executor="inline")
    assert again.trials == 0 and again.best == found.best


def test_a_trial_that_kills_every_worker_is_given_up_with_the_reason(work, cluster, monkeypatch):
    monkeypatch.setenv("QM_GRID_FOLDER", str(work))
    (work / "kill-ever").write_text("w8 most")
    found = qm.tune("net.toy", data="data.npz", min_sqnr_db=ENOUGH_DB, executor="ray", workers=2)
    assert found.reached
    assert list(found.failed) == ["grid.grid-w8-cover=most.toy"]
    assert "the worker died" in found.failed["grid.grid-w8-cover=most.toy"]
