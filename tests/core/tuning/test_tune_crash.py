"""Kills, crashes and interrupts: no file is broken, nothing finished is lost, and the search goes on."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

import qm
from qm.errors import UsageError
from qm.recipe import Recipe
from qm.tuning.rack import Rack

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")

ENOUGH_DB = 11.6


def start(folder, environment, *words, executor="inline", slow="0.05", **more):
    command = [sys.executable, "-m", "qm", "tune", "net.toy", "--data", "data.npz", "--min-sqnr", str(ENOUGH_DB)]
    return subprocess.Popen(
        [*command, "--executor", executor, *words],
        cwd=folder,
        env={**environment, "QM_GRID_SLEEP": slow},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **more,
    )


def lines(folder) -> list[dict]:
    """The journal's whole lines, the first aside."""
    path = folder / "net.tune/trials.jsonl"
    data = path.read_bytes() if path.exists() else b""
    return [json.loads(line) for line in data.rpartition(b"\n")[0].splitlines()[1:]]


def wait_for_trials(folder, process, count) -> None:
    end = time.monotonic() + 60
    while len(lines(folder)) < count and process.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.01)


def check(folder) -> None:
    """Every file is whole, and has its recipe."""
    for file in (folder / "net.tune").glob("*.toy"):
        assert Recipe.read(file.with_name(file.name + ".toml")).stages
        assert len(qm.load(file).layers()) == 3


def test_a_kill_at_any_moment_breaks_no_file_and_loses_no_finished_trial(work, environment, tuned_front):
    rng = random.Random(7)
    known: list[dict] = []
    for turn in range(10):
        process = start(work, environment, executor="processes" if turn % 5 == 4 else "inline")
        wait_for_trials(work, process, len(known) + 1)
        time.sleep(rng.uniform(0, 0.08))
        process.kill()
        process.communicate()
        check(work)
        assert lines(work)[: len(known)] == known
        known = lines(work)
    last = start(work, environment, "--resume", slow="0")
    out, err = last.communicate(timeout=60)
    assert last.returncode == 0, err
    tried = [line["key"] for line in lines(work)]
    assert len(tried) == len(set(tried))
    assert lines(work)[: len(known)] == known
    assert f"{len(known)} remembered" in out
    check(work)
    left = {p.name for p in (work / "net.tune").iterdir()}
    assert not [name for name in left if name.startswith(".trial")]
    assert {name for name in left if name.endswith(".toy") and not name.startswith("best")} == tuned_front


@pytest.fixture
def tuned_front(once):
    """The names of the files that a search without any kill leaves."""
    _, found = once
    return {p.file.rpartition("/")[2] for p in found.front}


@pytest.mark.parametrize(("how", "executor"), [(signal.SIGINT, "processes"), (signal.SIGTERM, "inline")])
def test_an_interrupt_leaves_the_front_so_far_and_says_where(work, environment, how, executor):
    """The signal goes to the whole group, as a terminal sends it."""
    process = start(work, environment, executor=executor, slow="0.2", start_new_session=True)
    wait_for_trials(work, process, 2)
    os.killpg(process.pid, how) if how is signal.SIGINT else process.send_signal(how)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert "the front so far is in 'net.tune'; the same command goes on from there" in err
    assert "Traceback" not in err
    check(work)
    assert not [p for p in (work / "net.tune").iterdir() if p.name.startswith(".trial")]


def test_no_worker_outlives_its_parent(work, environment):
    process = start(work, environment, executor="processes", slow="5")
    end = time.monotonic() + 60
    while not (work / "tried.log").exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True)
    process.kill()
    process.communicate()
    left = [int(pid) for pid in children.stdout.split()]
    assert left
    while any(os.path.exists(f"/proc/{pid}/fd/0") for pid in left):
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_trial_whose_worker_dies_is_carried_out_by_another(work):
    (work / "kill-once").write_text("w4 whole")
    found = qm.tune("net.toy", data="data.npz", min_sqnr_db=ENOUGH_DB, workers=2)
    assert found.reached and not found.failed and found.lost_workers == 1
    assert not (work / "kill-once").exists()
    assert found.executor.startswith("2 processes of ")


def test_a_trial_that_kills_every_worker_is_given_up_with_the_reason_and_the_others_go_on(work):
    (work / "kill-ever").write_text("w8 most")
    found = qm.tune("net.toy", data="data.npz", min_sqnr_db=ENOUGH_DB, workers=2)
    assert found.reached
    assert list(found.failed) == ["grid.grid-w8-cover=most.toy"]
    assert "was killed, probably by the system for lack of memory" in found.failed["grid.grid-w8-cover=most.toy"]
    assert (work / "tried.log").read_text().splitlines().count("w8 most") == 2
    again = qm.tune("net.toy", data="data.npz", min_sqnr_db=ENOUGH_DB, workers=2)
    assert again.trials == 0 and again.failed == found.failed


def test_processes_find_what_one_process_finds(work, once):
    _, alone = once
    found = qm.tune("net.toy", data="data.npz", min_sqnr_db=ENOUGH_DB, workers=2)
    assert [(p.name, p.nbytes, p.sqnr_db) for p in found.front] == [(p.name, p.nbytes, p.sqnr_db) for p in alone.front]
    assert found.best.name == alone.best.name


def test_two_runs_do_not_share_a_folder(work):
    with Rack(work / "net.tune", resume=False).held(), pytest.raises(UsageError, match="another run is at work in"):
        qm.tune("net.toy", data="data.npz", executor="inline")


def test_data_that_cannot_be_handed_over_is_a_sentence(work):
    class Rows:
        labels = None

        def __len__(self):
            return 40

        def __iter__(self):
            import numpy as np

            return iter({"x": np.ones((1, 16), np.float32) * i} for i in range(40))

    with pytest.raises(UsageError, match="cannot be handed to another process"):
        qm.tune("net.toy", data=Rows(), min_sqnr_db=10)
