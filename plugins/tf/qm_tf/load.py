"""Reading a .tflite file, or saying in one sentence why it cannot be read."""

from __future__ import annotations

import struct
from pathlib import Path

from qm.plugin import LoadJob, UsageError, contents
from qm_tf import flat
from qm_tf.damage import damage
from qm_tf.model import LiteModel
from qm_tf.normalize import normalize
from qm_tf.scheme import is_quantized

_OTHERS = (
    (0, b"PK\x03\x04", "a zip archive, such as a .keras or PyTorch file"),
    (0, b"\x89HDF\r\n", "an HDF5 file, such as a Keras .h5 model"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"version https://git-lfs", "a Git LFS pointer, to be fetched with git lfs pull"),
)

BROKEN_FLATBUFFER = (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError, struct.error)
"""What reading a damaged flatbuffer runs into: it has no checks of its own."""


def load(job: LoadJob) -> LiteModel:
    """The model in a .tflite file, put in order (see ``normalize``) where it is a float model; the file stays as it is.

    Raises:
        UsageError: the file is missing, is not a TensorFlow Lite model, or is damaged.
        Unsupported: LiteRT does not know one of its operations.
    """
    model = opened(job.path)
    model.inputs()  # LiteRT's own checks.
    if is_quantized(model.native):
        return model
    return model.with_content(flat.serialize(normalize(model.native)))


def opened(path: Path) -> LiteModel:
    """The model as it stands in the file, once it is known to be sound.

    Raises:
        UsageError: as ``load`` says.
    """
    content = read(path)
    model = LiteModel(content, name=str(path))
    try:
        wrong = damage(model.native)
    except BROKEN_FLATBUFFER:
        raise _damaged(path, content) from None
    if wrong:
        raise UsageError(f"model {str(path)!r} is damaged: {wrong}", hint="Download or convert it again.")
    if not any(g.operators for g in model.native.subgraphs):
        raise UsageError(f"model {str(path)!r} has no operations", hint="Convert it again.")
    return model


def read(path: Path) -> bytes:
    """The file's bytes, once they look like a TensorFlow Lite model."""
    content = contents(path, "a .tflite file")
    if content[4:8] != flat.MAGIC:
        what = next((text for at, magic, text in _OTHERS if content[at : at + len(magic)] == magic), None)
        raise UsageError(
            f"{str(path)!r} is {what or 'no TensorFlow Lite model'}" + (", not a .tflite model" if what else ""),
            hint="Name the .tflite file, or give the file the suffix of what it is.",
        )
    return content


def _damaged(path: Path, content: bytes) -> UsageError:
    return UsageError(
        f"model {str(path)!r} is damaged or cut short at {len(content):,} bytes", hint="Download or convert it again."
    )
