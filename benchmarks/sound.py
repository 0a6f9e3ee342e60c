"""A sound copy of the shared EfficientNet-Lite0.

    python benchmarks/sound.py COPY.onnx

In some copies of that file the paths in the nodes' stack traces were shortened without their length fields, so that
nothing can parse it. Filler in front of each path restores the lengths; the traces are dropped then. A sound file is
copied as it is.
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

SHORTENED = ((b'File "data/effnet', 5), (b'File "venv-torch', 6))
"""What the shortened paths begin with, and how many bytes are missing in front of each."""


def shared() -> Path | None:
    """The folder of shared data and models, None where there is none."""
    folder = Path(os.environ.get("QM_DATA") or Path(__file__).resolve().parents[2] / "shared")
    return folder if (folder / "models").is_dir() else None


def sound_copy(source: Path, copy: Path) -> Path:
    """Write a copy of the model at ``source`` that parses, and return where it is.

    Raises:
        ValueError: the file is damaged in another way.
    """
    content = source.read_bytes()
    if _parsed(content) is not None:
        shutil.copyfile(source, copy)
        return copy
    for start, missing in SHORTENED:
        content = content.replace(start, b"x" * missing + start)
    model = _parsed(content)
    if model is None:
        raise ValueError(f"{source} is damaged in a way that filler does not mend")
    for node in model.graph.node:
        del node.metadata_props[:]
    copy.write_bytes(model.SerializeToString(deterministic=True))
    return copy


def _parsed(content: bytes) -> onnx.ModelProto | None:
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except DecodeError:
        return None
    return model


def main() -> int:
    parser = argparse.ArgumentParser(description="Write a sound copy of the shared EfficientNet-Lite0.")
    parser.add_argument("copy", type=Path)
    args = parser.parse_args()
    folder = shared()
    if folder is None:
        print("skipped: there is no shared data; name its folder in QM_DATA")
        return 0
    print(sound_copy(folder / "models" / "efficientnet_lite0.onnx", args.copy))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
