from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto

from qm.plugin import ExportJob, LoadJob
from qm_onnx.export import export, write
from qm_onnx.load import load
from qm_onnx.model import OnnxModel

Sample = dict[str, NDArray[np.float32]]


def test_a_written_model_is_read_back_the_same(model: OnnxModel, tmp_path: Path) -> None:
    artifact = export(ExportJob(model=model, path=tmp_path / "out.onnx"))
    assert artifact.path == tmp_path / "out.onnx" and artifact.format == "onnx"
    assert onnx.load(artifact.path) == model.native
    onnx.checker.check_model(str(artifact.path), full_check=True)


def test_the_same_model_gives_the_same_bytes(model: OnnxModel, tmp_path: Path) -> None:
    first, second = (export(ExportJob(model=model, path=tmp_path / name)).path for name in ("a.onnx", "b.onnx"))
    assert first.read_bytes() == second.read_bytes()


def test_layers_keep_their_names_from_file_to_file(model: OnnxModel, tmp_path: Path) -> None:
    again = load(LoadJob(path=export(ExportJob(model=model, path=tmp_path / "out.onnx")).path))
    assert again.layers() == model.layers()


def test_a_large_model_keeps_its_weights_beside(model: OnnxModel, tmp_path: Path, sample: Sample) -> None:
    path = tmp_path / "out.onnx"
    write(model.native, path, beside_from=1000)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.onnx", "out.onnx.data"]
    assert path.stat().st_size < 4000
    assert np.array_equal(load(LoadJob(path=path)).run(sample)["y"], model.run(sample)["y"])


def test_weights_beside_a_model_start_at_a_page(model: OnnxModel, tmp_path: Path) -> None:
    write(model.native, tmp_path / "out.onnx", beside_from=1000)
    proto = onnx.load(tmp_path / "out.onnx", load_external_data=False)
    offsets = [int(e.value) for t in proto.graph.initializer for e in t.external_data if e.key == "offset"]
    assert offsets and all(offset % 4096 == 0 for offset in offsets)


def test_external_data_moves_along(
    model: OnnxModel, tmp_path: Path, sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qm_onnx.load.SMALL", 500)
    (tmp_path / "from").mkdir()
    (tmp_path / "to").mkdir()
    write(model.native, tmp_path / "from" / "in.onnx", beside_from=1000)
    loaded = load(LoadJob(path=tmp_path / "from" / "in.onnx", streamed=True))
    artifact = export(ExportJob(model=loaded, path=tmp_path / "to" / "out.onnx"))
    for made in (tmp_path / "from").iterdir():
        made.unlink()
    assert artifact.nbytes == sum(p.stat().st_size for p in (tmp_path / "to").iterdir())
    monkeypatch.undo()
    assert np.array_equal(load(LoadJob(path=artifact.path)).run(sample)["y"], model.run(sample)["y"])


def test_writing_does_not_change_the_model(proto: ModelProto, tmp_path: Path) -> None:
    before = proto.SerializeToString()
    write(proto, tmp_path / "out.onnx", beside_from=1000)
    assert proto.SerializeToString() == before
