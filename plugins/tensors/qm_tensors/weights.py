"""Matrices to integers, one after another, from the mapped file into the new one."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import replace

import numpy as np

from qm.numerics import Grid, channelled, dequantize, grouped, pack_words, packed
from qm.plugin import Array, QuantizeJob, Scheme
from qm_tensors import header, layout
from qm_tensors.filling import Contents, Filling, blocks
from qm_tensors.matrix import Matrix
from qm_tensors.model import TensorsModel

ENCODING = 1
"""Goes up when other bytes are stored for the same weight, so that no run goes on from what an older version left."""


def quantize(job: QuantizeJob) -> TensorsModel:
    """The file with the plan's matrices stored as integers, and all other tensors as they were."""
    model: TensorsModel = job.model  # type: ignore[assignment]
    job.plan.check(layout.matrices(model.header), {"w8", "w4g32", "w4g128"}, "tensors.weights")
    tensors = layout.stored(model.header, job.plan)
    head, made = header.laid_out(tensors, layout.metadata(model.header.metadata, job.plan))
    filling = Filling(job.scratch, _subject(model, head), head, made)
    kept: dict[str, float] = {}
    # Closed whatever happens: who is interrupted may ask for the same again, in this process too.
    with closing(filling):
        for name in job.progress.track(list(model.header.entries), "quantize"):
            scheme = job.plan[name]
            if scheme.is_float:
                filling.once(name, {name: lambda name=name: _copied(model, name)})  # type: ignore[misc]
            else:
                work = _Work(Matrix(model.path, name, model.header.entries[name]), scheme)
                kept[name] = filling.once(name, work.contents(name), work.told)["sqnr_db"]
    _say(job, kept)
    return TensorsModel(filling.path, made, filling)


def _subject(model: TensorsModel, head: bytes) -> str:
    """What tells one piece of work from another: the file, and what is to be made of it."""
    status = model.path.stat()
    told = json.dumps([ENCODING, str(model.path), status.st_size, status.st_mtime_ns]).encode()
    return hashlib.sha256(told + head).hexdigest()[:16]


def _copied(model: TensorsModel, name: str) -> Iterator[bytes]:
    entry = model.header.entries[name]
    with model.path.open("rb") as f:
        yield from blocks(f, entry.offset, entry.nbytes)


def _say(job: QuantizeJob, kept: dict[str, float]) -> None:
    """Nothing runs such a file here, so that what the weights lost is all that can be measured."""
    if not kept:
        return
    worst = min(kept, key=lambda name: kept[name])
    middle = float(np.median(list(kept.values())))
    job.notes.say(
        f"the weights themselves keep {middle:.1f} dB in the median matrix and {kept[worst]:.1f} dB in the worst, "
        f"{worst!r}"
    )
    job.notes.say(
        f"the layout is that of compressed-tensors: copy {layout.CONFIG!r} from the file's metadata into the model's "
        "config.json where its loader asks for it"
    )


class _Seen:
    """A matrix that remembers the part that was read last."""

    def __init__(self, matrix: Matrix) -> None:
        self._matrix, self.shape = matrix, matrix.shape
        self.last: Array = np.empty(0, np.float32)

    def read(self, place: tuple[slice, ...]) -> Array:
        self.last = self._matrix.read(place)
        return self.last

    def release(self) -> None:
        self._matrix.release()


class _Work:
    """One matrix on its way, and how much of it is kept."""

    def __init__(self, matrix: Matrix, scheme: Scheme) -> None:
        self._seen, self._scheme = _Seen(matrix), scheme
        self._signal = self._noise = 0.0

    def contents(self, name: str) -> Contents:
        """What makes the tensors that the matrix is stored as, integers first: on the way the grid is found."""
        if not self._scheme.group:
            grid, found = channelled(self._seen, bits=self._scheme.weight_bits, axis=0)
            return {
                name: lambda: self._watched(grid, found),
                f"{name}_scale": lambda: [_bytes(grid.scale, "<f4")],
            }
        grid, found = grouped(self._seen, bits=self._scheme.weight_bits, group=self._scheme.group, axis=1)
        return {
            f"{name}_packed": lambda: (p.data for p in packed(self._watched(grid, found)) if p.size),
            f"{name}_scale": lambda: [_bytes(grid.scale, "<f4")],
            f"{name}_zero_point": lambda: [_bytes(pack_words(grid.zero_point, axis=0), "<i4")],
            f"{name}_shape": lambda: [np.array(self._seen.shape, "<i8").data],
        }

    def told(self) -> dict[str, float]:
        """The SQNR in dB of the weights as stored."""
        return {"sqnr_db": 10 * math.log10(max(self._signal, 1e-30) / max(self._noise, 1e-30))}

    def _watched(self, grid: Grid, found: Iterable[tuple[tuple[slice, ...], Array]]) -> Iterator[Array]:
        for (rows, columns), q in found:
            columns = slice(columns.start // grid.group, -(-columns.stop // grid.group)) if grid.group else columns
            place = (rows, columns) if grid.group else rows
            part = replace(grid, scale=grid.scale[place], zero_point=grid.zero_point[place])
            error = dequantize(q, part) - self._seen.last
            self._noise += float(np.vdot(error, error))
            self._signal += float(np.vdot(self._seen.last, self._seen.last))
            yield np.ascontiguousarray(q)


def _bytes(values: Array, dtype: str) -> Array:
    return np.ascontiguousarray(values.astype(dtype))
