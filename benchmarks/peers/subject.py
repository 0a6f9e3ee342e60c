"""The models of the league: float files, the samples that calibrate and those that judge, the same for everyone."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import efficientnet
import numpy as np
import onnx
import resnet8_onnx
from sound import sound_copy

CALIBRATION = 64


@dataclass(frozen=True)
class Subject:
    """A model on disk. ``samples.npy`` calibrates; ``judging.npy`` and ``labels.npy`` judge. ``source`` is what a tool
    is handed that starts from another file than the float model."""

    title: str
    folder: Path
    model: Path
    name: str
    source: Path

    @property
    def samples(self) -> Path:
        """The samples that calibrate, ``(64, ...)``."""
        return self.folder / "samples.npy"

    @property
    def judging(self) -> Path:
        """The samples that judge."""
        return self.folder / "judging.npy"

    @property
    def labels(self) -> Path:
        """Their classes."""
        return self.folder / "labels.npy"


def resnet8(shared: Path, folder: Path, judges: int) -> Subject:
    """ResNet-8 as ONNX, which gives logits."""
    model = folder / "float.onnx"
    if not model.exists():
        _cifar(shared, folder, judges, order=(0, 3, 1, 2))
        onnx.save(resnet8_onnx.resnet8(shared / "models" / "resnet8_cifar10.h5"), model)
    return Subject("ResNet-8, ONNX, CIFAR-10", folder, model, "image", model)


def resnet8_lite(shared: Path, folder: Path, judges: int) -> Subject:
    """The same from Keras, for LiteRT; the float file is made of it by TensorFlow's converter, without the softmax."""
    source = shared / "models" / "resnet8_cifar10.h5"
    if not (folder / "labels.npy").exists():
        _cifar(shared, folder, judges, order=(0, 1, 2, 3))
    return Subject("ResNet-8, LiteRT, CIFAR-10", folder, folder / "float.tflite", "image", source)


def efficient_net(shared: Path, folder: Path, judges: int) -> Subject:
    """EfficientNet-Lite0 as ONNX; 64 of the images calibrate, the others judge."""
    model = folder / "float.onnx"
    if not model.exists():
        calibration, test = efficientnet.halves(shared)
        _save(folder, *(np.concatenate([b["image"] for b in data]) for data in (calibration, test)), test.labels)
        sound_copy(shared / "models" / "efficientnet_lite0.onnx", model)
    with_name = onnx.load(model, load_external_data=False).graph.input[0].name
    return Subject("EfficientNet-Lite0, ONNX, ImageNet", folder, model, with_name, model)


SUBJECTS: dict[str, Callable[[Path, Path, int], Subject]] = {
    "resnet8": resnet8,
    "efficientnet": efficient_net,
    "resnet8-lite": resnet8_lite,
}


def _cifar(shared: Path, folder: Path, judges: int, order: tuple[int, ...]) -> None:
    with np.load(shared / "data" / "cifar10.npz") as arrays:
        samples, judging = arrays["x_train"][:CALIBRATION], arrays["x_test"][:judges]
        labels = arrays["y_test"][:judges]
    _save(folder, *(a.transpose(order).astype(np.float32) for a in (samples, judging)), labels)


def _save(folder: Path, samples: Any, judging: Any, labels: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "samples.npy", np.ascontiguousarray(samples))
    np.save(folder / "judging.npy", np.ascontiguousarray(judging))
    np.save(folder / "labels.npy", np.asarray(labels, np.int64).ravel())


def write_whole(path: Path, value: Any) -> None:
    """Write JSON so that a reader never sees half of it."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    os.replace(part, path)
