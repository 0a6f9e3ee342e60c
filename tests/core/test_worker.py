import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from qm.errors import PluginError, UsageError
from qm.scheme import Scheme
from qm.types import Artifact
from qm.worker import Worker

MIME = Path(__file__).parent / "mime"
X = {"x": np.array([1.0, 2.0], np.float32)}


@pytest.fixture
def open_mime(tmp_path, monkeypatch):
    """Opens a model that does what its text says, by a plugin installed for the test alone."""
    info = tmp_path / "mime-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mime\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[qm.v1]\nmime = qm_mime\n")
    monkeypatch.syspath_prepend(str(MIME))
    monkeypatch.syspath_prepend(str(tmp_path))
    workers = []

    def open_mime(deed, **options):
        path = tmp_path / f"{deed.split()[0]}.mime"
        path.write_text(deed)
        worker = Worker(Artifact(path=path, format="mime"), **{"benchmark": "mime.run", **options})
        workers.append(worker)
        return worker

    yield open_mime
    for worker in workers:
        worker.close()


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def pid_of(worker):
    return int(next(worker.run([X]))["y"][0])


def test_outputs_come_back_batch_by_batch(open_mime):
    outputs = list(open_mime("double").run({"x": np.full(3, i, np.float32)} for i in range(4)))
    assert [o["y"].tolist() for o in outputs] == [[2.0 * i] * 3 for i in range(4)]


def test_a_batch_is_asked_for_only_when_the_last_answer_was_taken(open_mime):
    taken = []
    answers = open_mime("double").run(taken.append(i) or X for i in range(3))
    next(answers)
    assert taken == [0]


def test_the_runtime_and_the_inputs_are_told(open_mime):
    worker = open_mime("double", threads=2)
    assert worker.runtime == "mime 1.0, 2 threads"
    assert [str(spec) for spec in worker.inputs] == ["x float32 [?]"]


def test_the_number_of_threads_reaches_the_runtime_and_the_libraries(open_mime):
    assert next(open_mime("threads", threads=3).run([X]))["y"].tolist() == [3, 3]


def test_two_workers_are_two_processes(open_mime):
    assert len({pid_of(open_mime("pid")), pid_of(open_mime("pid")), os.getpid()}) == 3


def test_a_block_gives_as_many_times_as_were_asked(open_mime):
    seconds = open_mime("spin 1000").block(X, runs=12, drop=3)
    assert len(seconds) == 12 and min(seconds) > 0


def test_layers_and_schemes_come_through_the_loader(open_mime):
    worker = open_mime("double", loader="mime.load")
    assert [layer.name for layer in worker.layers()] == ["one"]
    assert worker.schemes() == {"one": Scheme.parse("w8a8")}


def test_without_a_loader_the_layers_are_not_known(open_mime):
    with pytest.raises(PluginError, match="no loader was named"):
        open_mime("double").layers()


def test_peak_memory_counts_what_the_model_takes_and_little_else(open_mime):
    # 64 MiB of ballast; a few MiB of allocator and pickling may come on top.
    assert 64 << 20 <= open_mime("ballast 64").peak_bytes() <= 80 << 20


def test_what_a_library_prints_does_not_disturb_the_answers(open_mime):
    assert next(open_mime("print").run([X]))["y"].tolist() == [2.0, 4.0]


def test_a_crash_is_named_by_its_signal(open_mime):
    with pytest.raises(PluginError, match=r"'mime\.run': the process that ran 'crash\.mime' died of SIGSEGV") as caught:
        next(open_mime("crash").run([X]))
    assert "last words" in caught.value.__notes__[0]


def test_a_kill_is_put_down_to_lack_of_memory(open_mime):
    with pytest.raises(PluginError, match="was killed, probably by the system for lack of memory"):
        next(open_mime("kill").run([X]))


def test_a_child_that_dies_while_it_opens_is_named_too(open_mime):
    with pytest.raises(PluginError, match=r"'die-at-once\.mime' was killed"):
        open_mime("die-at-once")


def test_a_child_that_leaves_is_named_by_its_exit_code(open_mime):
    with pytest.raises(PluginError, match="ended with exit code 7"):
        next(open_mime("leave").run([X]))


def test_a_child_that_hangs_is_stopped(open_mime):
    worker = open_mime("hang")
    worker.timeout_s = 0.2
    with pytest.raises(PluginError, match=r"gave no answer within 0\.2 s and was stopped"):
        next(worker.run([X]))


def test_a_dead_worker_says_so_and_does_not_hang(open_mime):
    worker = open_mime("kill")
    with pytest.raises(PluginError):
        next(worker.run([X]))
    with pytest.raises(PluginError, match="is closed"):
        next(worker.run([X]))


def test_an_exception_in_the_plugin_carries_its_name_and_its_trace(open_mime):
    with pytest.raises(PluginError, match=r"running 'raise\.mime' failed: ValueError: no such luck") as caught:
        next(open_mime("raise").run([X]))
    assert caught.value.plugin == "mime.run"
    assert "in do_raise" in caught.value.__notes__[0]


def test_a_worker_goes_on_after_an_exception(open_mime):
    worker = open_mime("double")
    with pytest.raises(PluginError, match="KeyError"):
        next(worker.run([{"z": X["x"]}]))
    assert next(worker.run([X]))["y"].tolist() == [2.0, 4.0]


def test_a_usage_error_keeps_its_type_message_and_hint(open_mime):
    with pytest.raises(UsageError) as caught:
        open_mime("refuse")
    assert (caught.value.message, caught.value.hint) == ("'refuse' is not a model", "Name another.")


def test_an_unknown_benchmark_is_a_usage_error(open_mime):
    with pytest.raises(UsageError, match=r"no method 'mime\.ran'"):
        open_mime("double", benchmark="mime.ran")


def test_a_benchmark_that_returns_no_session_is_blamed(open_mime):
    with pytest.raises(PluginError, match="benchmark returned int, not Session"):
        open_mime("double", benchmark="mime.wrong")


def test_outputs_that_are_no_dict_are_blamed(open_mime):
    with pytest.raises(PluginError, match="run returned list, not a dict of arrays"):
        next(open_mime("list").run([X]))


def test_closing_ends_the_process(open_mime):
    worker = open_mime("pid")
    pid = pid_of(worker)
    worker.close()
    assert not alive(pid)


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_an_interrupt_of_the_parent_ends_the_child(open_mime, tmp_path):
    """The signal goes to the whole group, as a terminal sends it; the script has no __main__ guard on purpose."""
    open_mime("double")
    (tmp_path / "hang.mime").write_text("hang")
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(f"""
        import sys
        sys.path[:0] = {[str(tmp_path), str(MIME)]!r}
        from pathlib import Path
        import numpy as np
        from qm.types import Artifact
        from qm.worker import Worker
        worker = Worker(Artifact(path=Path({str(tmp_path / "hang.mime")!r}), format="mime"), benchmark="mime.run")
        print(worker._process.pid, flush=True)
        next(worker.run([{{"x": np.zeros(1)}}]))
        """)
    )
    with subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as parent:
        child = int(parent.stdout.readline())
        time.sleep(0.3)
        os.killpg(parent.pid, signal.SIGINT)
        _, complaint = parent.communicate(timeout=20)
    assert complaint.rstrip().endswith("KeyboardInterrupt")
    assert not alive(child)
