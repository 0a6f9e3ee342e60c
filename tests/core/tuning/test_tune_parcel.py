"""What is shipped to machines that share no disk."""

from __future__ import annotations

from qm.tuning.job import Subject
from qm.tuning.parcel import Parcel


def test_a_parcel_holds_the_files_of_a_subject_and_no_path_of_the_sender(work, tmp_path):
    parcel = Parcel.of(Subject(model=work / "net.toy", data="data.npz:x,y"))
    (tmp_path / "there").mkdir()
    model = (work / "net.toy").read_bytes()
    for name in ("net.toy", "data.npz"):
        (work / name).unlink()
    opened = parcel.opened(tmp_path / "there")
    assert opened.model.read_bytes() == model
    assert opened.data == f"{tmp_path}/there/data/data.npz:x,y"


def test_what_cannot_be_carried_keeps_its_name(work, tmp_path):
    (tmp_path / "there").mkdir()
    opened = Parcel.of(Subject(model=work / "net.toy", data="nets:rows")).opened(tmp_path / "there")
    assert opened.data == "nets:rows"
