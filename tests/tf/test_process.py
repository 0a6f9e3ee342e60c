"""A child for TensorFlow: what it tells, how it may end, and that nobody is left behind. Those here are light."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from qm.plugin import PluginError, Unsupported
from qm_tf import process

Write = Callable[[str], str]


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """``child(body)`` is the name of a module whose ``work`` has that body."""

    def write(body: str, *, before: str = "") -> str:
        name = "the_child"
        text = f"import os, signal, sys, time\nfrom qm.plugin import Unsupported\nfrom qm_tf import process\n{before}\n"
        text += "def work(job, emit):\n" + textwrap.indent(textwrap.dedent(body), "    ")
        text += "\nif __name__ == '__main__':\n    process.serve(work)\n"
        (tmp_path / f"{name}.py").write_text(text)
        return name

    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return write


def ended(pid: int) -> bool:
    """Whether the process is gone, or will be in a moment."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


def test_a_child_answers(child: Write) -> None:
    name = child("return {'sum': job['a'] + job['b']}")
    assert process.run(name, {"a": 2, "b": 3}, what="adding") == {"sum": 5}


def test_events_come_before_the_result(child: Write) -> None:
    name = child("for n in range(3):\n    emit({'epoch': n})\nreturn {'done': True}")
    with process.started(name, {}, what="counting") as started:
        assert [event["epoch"] for event in started.events()] == [0, 1, 2]
        assert started.result == {"done": True}


def test_noise_on_every_stream_is_no_event(child: Write) -> None:
    noise = "print('{\"result\": {}}'); os.write(1, b'3'); print('noise', file=sys.stderr)"
    name = child(noise + "\nsys.stdout.write('cut')\nreturn {'n': 1}", before="os.write(1, b'no line end')")
    assert process.run(name, {}, what="shouting") == {"n": 1}


def test_a_refusal_comes_through_with_its_hint(child: Write) -> None:
    name = child("raise Unsupported('no such thing', hint='Take another.')")
    with pytest.raises(Unsupported, match="no such thing") as caught:
        process.run(name, {}, what="trying")
    assert caught.value.hint == "Take another."


def test_an_error_names_the_work_and_itself(child: Write) -> None:
    name = child("raise ZeroDivisionError('by zero')")
    with pytest.raises(PluginError, match="plugin 'tf': dividing failed: ZeroDivisionError: by zero"):
        process.run(name, {}, what="dividing")


def test_a_child_that_cannot_start_ends_in_its_last_words(child: Write) -> None:
    name = child("return {}", before="import nothing_of_that_name")
    with pytest.raises(PluginError, match="starting failed: ModuleNotFoundError: .*nothing_of_that_name"):
        process.run(name, {}, what="starting")


def test_a_child_that_exits_without_a_word_tells_its_code(child: Write) -> None:
    name = child("os._exit(7)")
    with pytest.raises(PluginError, match="its process ended with code 7"):
        process.run(name, {}, what="leaving")


def test_a_killed_child_is_put_down_to_memory(child: Write) -> None:
    name = child("os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(PluginError, match="was killed, as happens when memory runs out"):
        process.run(name, {}, what="growing")


def test_a_crash_names_its_signal(child: Write) -> None:
    name = child("os.kill(os.getpid(), signal.SIGSEGV)")
    with pytest.raises(PluginError, match="died of SIGSEGV"):
        process.run(name, {}, what="crashing")


def test_a_child_can_save_when_the_parent_is_interrupted(child: Write, tmp_path: Path) -> None:
    name = child("""
        try:
            emit({"ready": True})
            time.sleep(60)
        except KeyboardInterrupt:
            open(job["place"], "w").write("saved")
            raise
    """)
    with pytest.raises(KeyboardInterrupt), process.started(name, {"place": str(tmp_path / "x")}, what="w") as started:
        for _ in started.events():
            raise KeyboardInterrupt
    assert (tmp_path / "x").read_text() == "saved"
    assert ended(started.pid)


def test_a_child_that_does_not_listen_is_killed(child: Write) -> None:
    name = child("signal.signal(signal.SIGINT, signal.SIG_IGN)\nemit({'ready': True})\ntime.sleep(60)")
    with (
        pytest.raises(KeyboardInterrupt),
        process.started(name, {}, what="sleeping", patience_s=0.2) as started,
    ):
        for _ in started.events():
            raise KeyboardInterrupt
    assert ended(started.pid)


PARENT = """
from qm_tf import process
with process.started("the_child", {}, what="sleeping") as started:
    for event in started.events():
        print(event["pid"], flush=True)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_child_outlives_its_parent(child: Write, how: signal.Signals) -> None:
    child("emit({'pid': os.getpid()})\ntime.sleep(60)")
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=os.environ
    )
    assert parent.stdout is not None
    with parent.stdout:
        pid = int(parent.stdout.readline())
        parent.send_signal(how)
        parent.wait(30)
    assert ended(pid)


CALLED_FROM = '<unknown>:0: note: loc("called"): called from\n'


def test_the_sentence_of_a_converter_message_is_kept() -> None:
    message = (
        'Could not translate MLIR to FlatBuffer.<unknown>:0: error: loc(callsite(fused["Inv:", "a@b(c)"] at '
        'fused["Call:", "d"])): \'tf.Inv\' op is neither a custom op nor a flex op\n' + CALLED_FROM
    )
    assert process.shortened(message) == "'tf.Inv' op is neither a custom op nor a flex op"


def test_the_sentence_of_a_keras_message_is_kept() -> None:
    message = (
        "Exception encountered when calling Functional.call().\n\n\x1b[1mShapes do not fit\x1b[0m\n\n"
        "Arguments received by Functional.call():\n  • inputs=tf.Tensor(shape=(1, 8))"
    )
    assert process.shortened(message) == "Shapes do not fit"


def test_a_message_is_never_longer_than_three_hundred_letters() -> None:
    assert len(process.shortened("word " * 1000)) <= 300
