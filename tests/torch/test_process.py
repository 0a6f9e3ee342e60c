"""A compiler works in a process of its own, and what happens to it is told in a sentence."""

from __future__ import annotations

import os

import pytest

from qm.plugin import PluginError, UsageError
from qm_torch import process

CHILD = """
import os, signal, sys, time
from qm.plugin import UsageError
from qm_torch import process

def work(job, emit):
    print("noise on the output")
    if job["do"] == "refuse":
        raise UsageError("the weather is bad", hint="Wait.")
    if job["do"] == "fail":
        raise RuntimeError("first line\\nsecond line")
    if job["do"] == "die":
        os.kill(os.getpid(), signal.SIGSEGV)
    if job["do"] == "leave":
        print("last words", file=sys.stderr); sys.stderr.flush(); os._exit(3)
    return {"told": job["do"], "where": os.getcwd(), "temporary": os.environ["TMPDIR"]}

if __name__ == "__main__":
    process.serve(work)
"""


@pytest.fixture
def ask(tmp_path, monkeypatch):
    (tmp_path / "some_child.py").write_text(CHILD)
    monkeypatch.syspath_prepend(str(tmp_path))

    def run(do):
        with process.workshop() as folder:
            return process.run("some_child", {"do": do}, what="the work", folder=folder), folder

    return run


def test_the_result_comes_back_through_the_noise(ask):
    assert ask("this")[0]["told"] == "this"


def test_the_child_works_in_the_folder_and_leaves_nothing_elsewhere(ask):
    told, folder = ask("this")
    assert told["where"] == told["temporary"] == str(folder)
    assert not folder.exists()


def test_an_error_of_ours_stays_what_it_is(ask):
    with pytest.raises(UsageError, match="the weather is bad") as caught:
        ask("refuse")
    assert caught.value.hint == "Wait."


def test_an_error_of_others_is_one_sentence(ask):
    with pytest.raises(PluginError) as caught:
        ask("fail")
    assert "the work failed: RuntimeError: first line" in str(caught.value)
    assert "second" not in str(caught.value)


def test_a_crash_names_the_signal(ask):
    with pytest.raises(PluginError, match="the work failed: its process died of SIGSEGV"):
        ask("die")


def test_a_child_that_leaves_is_quoted(ask):
    with pytest.raises(PluginError, match="the work failed: last words"):
        ask("leave")


def test_no_child_is_left_behind(ask):
    ask("this")
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
