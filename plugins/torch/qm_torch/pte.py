"""A .pte file: what it says of itself, and running it by ExecuTorch."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any
from weakref import WeakSet

import torch
from executorch.extension.pybindings import portable_lib
from executorch.runtime import Runtime, Verification

from qm.plugin import Array, Batch, BenchmarkJob, Unsupported, UsageError, contents
from qm_torch.feed import Feed
from qm_torch.manifest import KEY, Manifest, Port
from qm_torch.session import CompiledSession

FORWARD = "forward"
MAGIC = b"ET12"
"""At the fourth byte. Source: ExecuTorch's schema/program.fbs, file_identifier."""

# Source: c10/core/ScalarType.h, whose numbers ExecuTorch shares.
_DTYPES = {
    0: "uint8", 1: "int8", 2: "int16", 3: "int32", 4: "int64", 5: "float16", 6: "float32", 7: "float64", 11: "bool",
    15: "bfloat16",
}  # fmt: skip


_OPEN: WeakSet[Pte] = WeakSet()
"""Kernels of a loaded method keep the pool of threads, and crash once it is gone: this is the one state to be kept."""


class Pte:
    """A program, its method loaded."""

    def __init__(self, path: Path, *, threads: int | None = None) -> None:
        """Open the file.

        Raises:
            UsageError: it is missing, damaged, or takes what is no tensor.
        """
        content = _content(path)
        if threads is not None:
            _set_threads(threads, path)
        try:
            # What the methods use lies in the program, and is gone with it.
            self._program = Runtime.get().load_program(content, verification=Verification.InternalConsistency)
            self._method = self._program.load_method(FORWARD)
        except (RuntimeError, KeyError) as e:
            raise UsageError(f"model {str(path)!r} cannot be opened: {_reason(e)}", hint="Export it again.") from e
        _OPEN.add(self)
        self.is_ours = KEY in self._program.method_names
        self.manifest = self._manifest(path)
        self._feed = Feed(path, self.manifest)

    def _manifest(self, path: Path) -> Manifest:
        if not self.is_ours:
            return _plain(self._program.metadata(FORWARD), path)
        method = self._program.load_method(KEY)
        assert method is not None
        try:
            return Manifest.parse(method.execute([])[0].numpy().tobytes().decode())
        except ValueError as e:
            raise UsageError(f"model {str(path)!r} is damaged: {e}", hint="Export it again.") from e

    def run(self, batch: Batch) -> dict[str, Array]:
        """The outputs by name."""
        inputs = self._feed.tensors(batch)
        assert self._method is not None
        with torch.no_grad():
            return self._feed.arrays(self._method.execute(inputs))


def _set_threads(threads: int, path: Path) -> None:
    """Before the method is loaded, which hands the pool to its kernels."""
    now = portable_lib._threadpool_get_thread_count()
    if now == threads:
        return
    if _OPEN:
        raise Unsupported(
            f"{str(path)!r} cannot be opened with {threads} threads while another .pte file is open with {now}",
            hint="Open each in a process of its own.",
        )
    portable_lib._unsafe_reset_threadpool(threads)


def open_session(job: BenchmarkJob) -> CompiledSession:
    """A .pte file, opened."""
    version = importlib.metadata.version("executorch")
    return CompiledSession(Pte(job.artifact.path, threads=job.threads), f"ExecuTorch {version} XNNPACK", job.threads)


def _content(path: Path) -> bytes:
    content = contents(path, "a .pte file")
    if content[4:8] != MAGIC:
        raise UsageError(f"{str(path)!r} is not an ExecuTorch program", hint="Name a .pte file.")
    return content


def _plain(told: Any, path: Path) -> Manifest:
    """Names made up for a program that was written by others."""
    try:
        inputs = [told.input_tensor_meta(i) for i in range(told.num_inputs())]
        outputs = [told.output_tensor_meta(i) for i in range(told.num_outputs())]
        return Manifest(inputs=_ports("input", inputs), outputs=_ports("output", outputs))
    except (RuntimeError, KeyError) as e:
        raise UsageError(
            f"model {str(path)!r} takes or gives what is no tensor: {_reason(e)}", hint="Export it with tensors alone."
        ) from e


def _ports(word: str, tensors: list[Any]) -> tuple[Port, ...]:
    return tuple(
        Port(name=f"{word}_{number}", shape=tuple(t.sizes()), dtype=_DTYPES[t.dtype()])
        for number, t in enumerate(tensors)
    )


def _reason(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200]
