"""Weights in .safetensors: the same integers as in one go, wherever a run was cut off."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest

import qm
from qm.errors import QmError, UsageError
from qm.numerics import dequantize, grid_for, group_grid, quantize, unpack_words
from qm.numerics import sqnr_db as sqnr
from qm.plugin import Silent
from qm_tensors.header import laid_out, read

safetensors = pytest.importorskip("safetensors.numpy")

SHAPES = {"a.weight": (67, 160), "b.weight": (33, 64), "embedding": (9, 40)}


class Stop(Exception):
    """What cuts a run off."""


class Until(Silent):
    """Lets so many steps through."""

    def __init__(self, steps: int) -> None:
        self._left = steps

    def track(self, items, label, total=None):
        for item in items:
            if self._left == 0:
                raise Stop
            self._left -= 1
            yield item


@pytest.fixture
def floats() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    made = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}
    return {**made, "a.bias": rng.standard_normal(67).astype(np.float32), "odd": made["a.weight"][:3, :5].copy()}


@pytest.fixture
def path(floats, tmp_path, monkeypatch) -> Path:
    # Matrices of this size must be gone through in many pieces.
    monkeypatch.setattr("qm.numerics.piecewise.PIECE", 260)
    safetensors.save_file(floats, tmp_path / "net.safetensors", metadata={"format": "np"})
    return tmp_path / "net.safetensors"


def quantized(path: Path, scheme: str, to: Path | None = None, **more) -> Path:
    to = to or path.with_name(f"{scheme}.safetensors")
    qm.quantize(path, ["tensors.weights"], scheme=scheme, to=to, **more)
    return to


@pytest.mark.parametrize("group", [32, 128])
def test_pieces_of_4_bits_are_those_of_the_whole_matrix(path, floats, group):
    made = safetensors.load_file(quantized(path, f"w4g{group}"))
    for name, (rows, columns) in SHAPES.items():
        grid = group_grid(floats[name], bits=4, group=group, axis=1)
        assert np.array_equal(unpack_words(made[f"{name}_packed"], columns), quantize(floats[name], grid))
        assert np.array_equal(unpack_words(made[f"{name}_zero_point"], rows, axis=0), grid.zero_point)
        # Sums over the values of a group that stands alone may be taken in another order: a unit in the last place.
        np.testing.assert_allclose(made[f"{name}_scale"], grid.scale, rtol=3e-7)
        assert made[f"{name}_shape"].tolist() == [rows, columns]


def test_pieces_of_8_bits_are_those_of_the_whole_matrix(path, floats):
    made = safetensors.load_file(quantized(path, "w8"))
    for name in SHAPES:
        grid = grid_for(floats[name], bits=8, axis=0)
        assert np.array_equal(made[name], quantize(floats[name], grid))
        assert np.array_equal(made[f"{name}_scale"][:, 0], grid.scale)


@pytest.mark.parametrize("scheme", ["w8", "w4g32"])
def test_what_is_no_matrix_stays_as_it_was(path, floats, scheme):
    made = safetensors.load_file(quantized(path, scheme))
    for name in ("a.bias", "odd"):
        assert np.array_equal(made[name], floats[name])


def test_the_metadata_say_what_each_matrix_is_in(path):
    made = quantized(path, "w4g32", rules=[qm.Rule(layers="b.weight", scheme="w8")])
    metadata = read(made).metadata
    assert metadata["format"] == "np"
    groups = json.loads(metadata["quantization_config"])["config_groups"].values()
    told = {target: (g["format"], g["weights"]["num_bits"]) for g in groups for target in g["targets"]}
    assert told == {"a": ("pack-quantized", 4), "embedding": ("pack-quantized", 4), "b": ("int-quantized", 8)}
    assert {name: str(s) for name, s in qm.load(made).schemes().items()} == {
        "a.weight": "w4g32",
        "b.weight": "w8",
        "embedding": "w4g32",
    }


def test_halves_are_read_as_the_floats_they_stand_for(floats, tmp_path):
    """The bits of a bfloat16 are the upper ones of a float32."""
    w = floats["a.weight"]
    upper = (w.view(np.uint32) >> 16).astype(np.uint16)
    cut = (upper.astype(np.uint32) << 16).view(np.float32)
    head, _ = laid_out([("w", "BF16", w.shape)], {})
    (tmp_path / "half.safetensors").write_bytes(head + upper.tobytes())
    safetensors.save_file({"w": cut}, tmp_path / "full.safetensors")
    one, other = (
        safetensors.load_file(quantized(tmp_path / f"{n}.safetensors", "w4g32", tmp_path / f"{n}.q.safetensors"))
        for n in ("half", "full")
    )
    assert all(np.array_equal(one[name], other[name]) for name in one)
    safetensors.save_file({"w": w.astype(np.float16)}, tmp_path / "f16.safetensors")
    made = safetensors.load_file(quantized(tmp_path / "f16.safetensors", "w8", tmp_path / "f16.q.safetensors"))
    assert sqnr(w, made["w"] * made["w_scale"]) > 40


@pytest.mark.parametrize("steps", [1, 3, 4])
def test_a_run_that_was_cut_off_goes_on_and_makes_the_same_file(path, tmp_path, steps):
    whole = quantized(path, "w4g32", tmp_path / "whole.safetensors").read_bytes()
    to = tmp_path / "cut.safetensors"
    with pytest.raises((Stop, QmError)):
        quantized(path, "w4g32", to, progress=Until(steps))
    assert not to.exists()
    (journal,) = (tmp_path / "cut.safetensors.partial").glob("*.jsonl")
    assert journal.read_bytes().count(b"\n") == 1 + steps
    assert quantized(path, "w4g32", to).read_bytes() == whole
    assert not journal.exists()


def test_what_a_crash_of_the_machine_spoilt_is_made_again(path, tmp_path):
    whole = quantized(path, "w8", tmp_path / "whole.safetensors").read_bytes()
    to = tmp_path / "cut.safetensors"
    with pytest.raises((Stop, QmError)):
        quantized(path, "w8", to, progress=Until(4))
    (made,) = (tmp_path / "cut.safetensors.partial").glob("*.safetensors")
    content = bytearray(made.read_bytes())
    content[-4000:] = bytes(4000)
    made.write_bytes(content)
    assert quantized(path, "w8", to).read_bytes() == whole


def test_the_report_says_what_the_weights_kept(path, floats):
    report = qm.quantize(path, ["tensors.weights"], scheme="w4g32", to=path.with_name("q.safetensors"))
    kept = {
        n: sqnr(w, dequantize(quantize(w, g := group_grid(w, bits=4, group=32, axis=1)), g))
        for n, w in floats.items()
        if n in SHAPES
    }
    assert any(f"{min(kept.values()):.1f} dB in the worst" in line for line in report.decisions)
    assert report.quality is None and any("not run" in f.seen for f in report.findings)


def test_a_matrix_with_nan_is_named(floats, tmp_path):
    floats["b.weight"][3, 3] = np.nan
    safetensors.save_file(floats, tmp_path / "net.safetensors")
    with pytest.raises(UsageError, match="'b.weight' holds NaN or infinity"):
        quantized(tmp_path / "net.safetensors", "w8")


def test_names_that_are_taken_are_told(tmp_path):
    tensors = {"w": np.ones((8, 32), np.float32), "w_scale": np.ones(3, np.float32)}
    safetensors.save_file(tensors, tmp_path / "net.safetensors")
    with pytest.raises(QmError, match="has a tensor 'w_scale' already"):
        quantized(tmp_path / "net.safetensors", "w8")


def headed(told: object, tail: bytes = b"") -> bytes:
    text = told if isinstance(told, bytes) else json.dumps(told).encode()
    return struct.pack("<Q", len(text)) + text + tail


TENSOR = {"dtype": "F32", "shape": [2, 8], "data_offsets": [0, 64]}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (headed(b"{", b""), "head does not fit|is not JSON"),
        (headed(b"[]  "), "not a JSON object"),
        (headed({"w": TENSOR}, bytes(60)), "has 1.. bytes, and its tensors end at"),
        (headed({"w": TENSOR | {"dtype": "F3"}}, bytes(64)), "unknown type, 'F3'"),
        (headed({"w": TENSOR | {"shape": [2, 9]}}, bytes(64)), "has 64 bytes, and 72 by its shape"),
        (headed({"w": TENSOR | {"shape": [-2, 8]}}, bytes(64)), "that is no number"),
        (headed({"w": TENSOR | {"data_offsets": [8, 72]}}, bytes(72)), "does not begin where the one before ends"),
        (headed({"w": {"dtype": "F32"}}, bytes(64)), "is not described"),
        (headed({"w": TENSOR, "__metadata__": {"a": 1}}, bytes(64)), "not texts by name"),
        (struct.pack("<Q", 1 << 60), "head does not fit"),
    ],
)
def test_a_damaged_head_is_told(tmp_path, content, sentence):
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(UsageError, match=sentence) as e:
        qm.load(tmp_path / "w.safetensors")
    assert "'" in e.value.message and e.value.hint
