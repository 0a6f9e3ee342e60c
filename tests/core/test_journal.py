"""A journal loses nothing but the line that was being written."""

from __future__ import annotations

import pytest

from qm.errors import UsageError
from qm.journal import Journal

SUBJECT = {"model": "abc", "seed": 0}


def test_entries_are_there_when_the_journal_is_opened_again(tmp_path):
    Journal(tmp_path / "j", SUBJECT).add("k", {"sqnr_db": 3.5})
    assert Journal(tmp_path / "j", SUBJECT).get("k") == {"sqnr_db": 3.5}


@pytest.mark.parametrize("cut", range(1, 30))
def test_a_journal_cut_short_anywhere_keeps_its_whole_lines_and_goes_on(tmp_path, cut):
    journal = Journal(tmp_path / "j", SUBJECT)
    journal.add("first", {"n": 1})
    journal.add("second", {"n": 2})
    data = (tmp_path / "j").read_bytes()
    (tmp_path / "j").write_bytes(data[:-cut])
    again = Journal(tmp_path / "j", SUBJECT)
    assert again.get("first") == {"n": 1}
    again.add("third", {"n": 3})
    assert Journal(tmp_path / "j", SUBJECT).get("third") == {"n": 3}


def test_a_journal_cut_in_its_first_line_starts_afresh(tmp_path):
    (tmp_path / "j").write_bytes(b'{"journal": 1, "sub')
    Journal(tmp_path / "j", SUBJECT).add("k", {"n": 1})
    assert Journal(tmp_path / "j", SUBJECT).get("k") == {"n": 1}


def test_a_journal_of_another_model_is_refused(tmp_path):
    Journal(tmp_path / "j", SUBJECT)
    with pytest.raises(UsageError, match="belongs to another model"):
        Journal(tmp_path / "j", {**SUBJECT, "model": "xyz"})


def test_another_file_is_no_journal(tmp_path):
    (tmp_path / "j").write_text("hello\nworld\n")
    with pytest.raises(UsageError, match="is not a journal"):
        Journal(tmp_path / "j", SUBJECT)


def test_a_journal_of_another_format_is_refused(tmp_path):
    Journal(tmp_path / "j", SUBJECT).add("k", {"n": 1})
    text = (tmp_path / "j").read_text()
    (tmp_path / "j").write_text(text.replace('"journal": 1', '"journal": 2'))
    with pytest.raises(UsageError, match="has format 2, and this version of qm knows 1"):
        Journal(tmp_path / "j", SUBJECT)


@pytest.mark.parametrize(
    "damage", ["{}", "7", "\0\0\0", '{"key": "b"}', '{"key": "b", "value": 3}', '{"key": [], "value": {}}']
)
def test_a_damaged_line_is_named_and_without_it_the_rest_is_kept(tmp_path, damage):
    journal = Journal(tmp_path / "j", SUBJECT)
    journal.add("a", {"n": 1})
    journal.add("b", {"n": 2})
    head, first, _ = (tmp_path / "j").read_text().splitlines()
    (tmp_path / "j").write_text("\n".join([head, damage, first, ""]))
    with pytest.raises(UsageError, match="line 2 of the journal .* is damaged") as caught:
        Journal(tmp_path / "j", SUBJECT)
    assert "Delete that line" in caught.value.hint
    (tmp_path / "j").write_text("\n".join([head, first, ""]))
    assert Journal(tmp_path / "j", SUBJECT).entries == {"a": {"n": 1}}
