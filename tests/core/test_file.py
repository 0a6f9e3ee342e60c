"""Files appear whole or not at all."""

from __future__ import annotations

import errno
import os

import pytest

from qm.errors import UsageError
from qm.file import sha256, written


def test_a_file_appears_when_it_is_whole(tmp_path):
    with written(tmp_path / "a") as temporary:
        temporary.write_text("whole")
        assert not (tmp_path / "a").exists()
    assert (tmp_path / "a").read_text() == "whole"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_or_an_interrupt_leaves_nothing(tmp_path, error):
    with pytest.raises(error), written(tmp_path / "a") as temporary:
        temporary.write_text("half")
        raise error
    assert list(tmp_path.iterdir()) == []


def test_an_error_leaves_the_old_file_as_it_was(tmp_path):
    (tmp_path / "a").write_text("old")
    with pytest.raises(ValueError, match="x"), written(tmp_path / "a", force=True) as temporary:
        temporary.write_text("new")
        raise ValueError("x")
    assert (tmp_path / "a").read_text() == "old"


def test_a_file_is_not_overwritten_without_force(tmp_path):
    (tmp_path / "a").write_text("old")
    with pytest.raises(UsageError, match=r"a' exists"), written(tmp_path / "a"):
        pass
    assert (tmp_path / "a").read_text() == "old"


def test_what_lies_beside_the_temporary_file_moves_along(tmp_path):
    with written(tmp_path / "m.onnx") as temporary:
        temporary.write_text("m")
        (temporary.parent / "m.onnx.data").write_text("d")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.onnx", "m.onnx.data"]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"the folder '.*nowhere' does not exist"), written(tmp_path / "nowhere" / "a"):
        pass


def test_a_folder_cannot_be_written_as_a_file(tmp_path):
    with pytest.raises(UsageError, match="is a folder"), written(tmp_path):
        pass


def test_a_full_disk_is_a_sentence(tmp_path):
    with pytest.raises(UsageError, match="no space left to write"), written(tmp_path / "a"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert list(tmp_path.iterdir()) == []


def test_the_hash_of_a_folder_depends_on_names_and_contents(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "f").write_text("same")
    assert sha256(tmp_path / "one") == sha256(tmp_path / "two")
    (tmp_path / "two" / "f").rename(tmp_path / "two" / "g")
    assert sha256(tmp_path / "one") != sha256(tmp_path / "two")
