"""An interrupt at any moment, or a disk that is full: no half-written file, and trials that were done are kept."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import qm_toy
from qm.errors import QmError

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")

SLOW = """
import time
from qm.plugin import Quantizer, Exporter, Planner, hookimpl
from pathlib import Path

def stop(stage):
    Path("reached-" + stage).touch()
    time.sleep(60)

@hookimpl(wrapper=True)
def qm_quantize(step):
    if Path("stop-quantize").exists(): stop("quantize")
    return (yield)

@hookimpl(wrapper=True)
def qm_export(step):
    artifact = yield
    if Path("stop-export").exists(): stop("export")
    return artifact

@hookimpl(wrapper=True)
def qm_plan(step):
    recipe = yield
    if Path("stop-plan").exists(): stop("plan")
    return recipe
"""


@pytest.fixture
def folder(tmp_path, publish):
    publish("slow", SLOW)
    work = tmp_path / "work"
    work.mkdir()
    qm_toy.make(work / "net.toy")
    qm_toy.make_data(work / "data.npz", samples=40)
    return work


def start(folder: Path, *words: str, **more) -> subprocess.Popen:
    env = {**os.environ, "QM_WITH": "slow", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "qm", *words]
    return subprocess.Popen(
        command, cwd=folder, env=env, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **more
    )


def wait_for(path: Path, process: subprocess.Popen) -> None:
    end = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("stage", ["quantize", "export"])
def test_an_interrupt_leaves_no_file(folder, stage, how):
    (folder / f"stop-{stage}").touch()
    before = {p.name for p in folder.iterdir()}
    process = start(folder, "quantize", "net.toy", "-p", "toy.round", "--to", "out.toy")
    wait_for(folder / f"reached-{stage}", process)
    process.send_signal(how)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert "interrupted" in err
    assert "Traceback" not in err
    assert {p.name for p in folder.iterdir()} - before == {f"reached-{stage}"}


def test_a_kill_leaves_the_trials_and_the_next_run_does_not_repeat_them(folder):
    (folder / "stop-plan").touch()
    words = ("quantize", "net.toy", "-p", "toy.protect", "-p", "toy.round", "--scheme", "w4", "--data", "data.npz")
    process = start(folder, *words)
    wait_for(folder / "reached-plan", process)
    process.kill()
    process.communicate()
    (journal,) = folder.glob("*.trials.jsonl")
    tried = len(journal.read_text().splitlines())
    assert tried > 1
    (folder / "stop-plan").unlink()
    (folder / "stop-quantize").touch()
    (folder / "reached-quantize").unlink(missing_ok=True)
    again = start(folder, *words)
    wait_for(folder / "reached-quantize", again)
    # The wrapper would have stopped the first trial: that it stops the final run only means that no trial was repeated.
    assert len(journal.read_text().splitlines()) == tried
    again.kill()
    again.communicate()


def test_a_full_disk_is_a_sentence_and_leaves_no_file(folder):
    import resource

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))

    before = {p.name for p in folder.iterdir()}
    process = start(folder, "quantize", "net.toy", "-p", "toy.round", "--to", "out.toy", preexec_fn=limit)
    _, err = process.communicate(timeout=60)
    assert process.returncode == QmError.exit_code, err
    assert "no space left to write 'out.toy'" in err
    assert "Traceback" not in err
    assert {p.name for p in folder.iterdir()} == before
