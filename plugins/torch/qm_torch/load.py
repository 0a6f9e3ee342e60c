"""Reading a .pt2 file, or saying in one sentence why it cannot be read. Nothing in the file is run."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# torchao's native libraries are for CUDA alone, and it complains aloud where they cannot be loaded.
os.environ.setdefault("TORCHAO_FORCE_SKIP_LOADING_SO_FILES", "1")

import torch.ao.quantization.fx._decomposed  # noqa: F401 - registers the operations of quantized programs
from torch._export.serde.serialize import SerializeError
from torch.export import ExportedProgram
from torch.export.pt2_archive import _package

from qm.plugin import LoadJob, Unsupported, UsageError
from qm_torch import archive, trust
from qm_torch.model import TorchModel
from qm_torch.quiet import quiet

_EXPORT = "Export it anew: torch.export.save(torch.export.export(module.eval(), inputs), 'net.pt2')."
_FACTORY = "or name a function that makes the module, package.module:function, and its weights with -o weights=FILE."
_FORCE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
_BROKEN = (AssertionError, AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError, SerializeError)
"""What reading a damaged archive runs into."""
_OTHERS = (
    (b"\x80\x02", "a pickle of the old PyTorch format"),
    (b"\x89HDF\r\n", "an HDF5 file, such as a Keras .h5 model"),
    (b"version https://git-lfs", "a Git LFS pointer, to be fetched with git lfs pull"),
)


def load(job: LoadJob) -> TorchModel:
    """The program in a .pt2 file of ``torch.export.save``.

    Raises:
        UsageError: the file is missing, is no such program, is damaged, or holds something that loading would run.
    """
    path = job.path
    _check(path)
    program = _program(path)
    model = TorchModel(program, name=str(path))
    if not model.inputs():
        raise UsageError(f"model {str(path)!r} takes no tensors", hint=_EXPORT)
    return model


def _check(path: Path) -> None:
    """Raise UsageError where the file is not an archive of one exported program."""
    if path.is_dir():
        raise UsageError(f"{str(path)!r} is a folder, not a .pt2 file", hint="Name the file in it.")
    try:
        head = path.open("rb").read(64)
        inside = archive.names(path)
    except FileNotFoundError:
        raise UsageError(f"model {str(path)!r} does not exist", hint="Check the path.") from None
    except OSError as e:
        reason = (e.strerror or str(e)).lower()
        raise UsageError(f"model {str(path)!r} cannot be read: {reason}", hint="Check its permissions.") from e
    if not head:
        raise UsageError(f"model {str(path)!r} is empty", hint="Download or export it again.")
    if not head.startswith(b"PK"):
        what = next((text for magic, text in _OTHERS if head.startswith(magic)), "no zip archive, as a .pt2 file is")
        raise UsageError(f"{str(path)!r} is {what}", hint=_EXPORT)
    if not inside:
        raise UsageError(
            f"model {str(path)!r} is damaged or cut short at {path.stat().st_size:,} bytes",
            hint="Download or export it again.",
        )
    what = _other(inside)
    if what:
        raise UsageError(f"{str(path)!r} is {what}, not a program of torch.export", hint=f"{_EXPORT[:-1]} {_FACTORY}")
    if not archive.is_program(path):
        raise UsageError(f"{str(path)!r} holds no exported program", hint=_EXPORT)


def _other(inside: list[str]) -> str:
    """What else a zip archive is; empty where nothing else is known."""
    ends = {n.rpartition("/")[2] for n in inside}
    if any(n.startswith(archive.AOTI) for n in inside):
        return "a package that AOTInductor compiled"
    if "constants.pkl" in ends or any(n.startswith("code/") for n in inside):
        return "TorchScript"
    if "data.pkl" in ends:
        return "a pickle, of a whole module or of weights alone, and unpickling can run code from it"
    if "model.weights.h5" in ends:
        return "a Keras file"
    if "serialized_exported_program.json" in ends:
        return "a program from PyTorch 2.7 or before"
    return ""


def _program(path: Path) -> ExportedProgram:
    with quiet(), _no_pickle():
        try:
            with _package.PT2ArchiveReader(os.fspath(path)) as reader:
                if what := trust.suspicion(reader):
                    raise UsageError(f"model {str(path)!r} is not safe to load: {what}", hint=_EXPORT)
            found = _package.load_pt2(os.fspath(path)).exported_programs
        except pickle.UnpicklingError as e:
            raise UsageError(
                f"model {str(path)!r} is not safe to load: its sample inputs are more than tensors", hint=_EXPORT
            ) from e
        except _BROKEN as e:
            raise _unreadable(path, e) from e
    if len(found) != 1:
        raise UsageError(f"model {str(path)!r} holds {len(found)} programs, where one is expected", hint=_EXPORT)
    return next(iter(found.values()))


def _unreadable(path: Path, error: Exception) -> UsageError | Unsupported:
    reason = str(error).strip().partition("\n")[0]
    if lacking := re.search(r"failed to resolve (torch\.ops\.\S+)", str(error)):
        return Unsupported(
            f"model {str(path)!r} uses {lacking[1]!r}, which is not an operation of this PyTorch",
            hint="Name a function that imports it and makes the module: package.module:function.",
        )
    if "version" in reason:
        return UsageError(f"model {str(path)!r} is of another PyTorch: {reason}", hint=_EXPORT)
    return UsageError(f"model {str(path)!r} is damaged: {reason[:200]}", hint="Download or export it again.")


@contextmanager
def _no_pickle() -> Iterator[None]:
    """Keep torch.load to weights alone: torch.export falls back to unpickling anything otherwise."""
    before = os.environ.get(_FORCE)
    os.environ[_FORCE] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_FORCE]
        else:
            os.environ[_FORCE] = before
