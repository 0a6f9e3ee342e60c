"""The models of the league: float files, the samples that calibrate and those that judge, the same for everyone."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import efficientnet
import numpy as np
import ocr
import onnx
from onnx import version_converter
from peers.recipe.job import keep, stored
from sound import sound_copy

CALIBRATION, LINES = 64, 32
"""Samples that calibrate: images, and lines of text."""

CHANNELS = 13
"""The first opset with a scale for each channel."""


class Absent(Exception):
    """The model is not on this machine; the text says what to install."""


@dataclass(frozen=True)
class Subject:
    """A model on disk. ``source`` is what a tool is handed that starts from another file than the float model;
    ``prepared`` is that model as peers need it.

    ``samples`` calibrates; ``judging`` judges, with its classes in ``labels.npy``, or with ``characters.json``, by
    which lines of text are read.
    """

    title: str
    folder: Path
    model: Path
    name: str
    source: Path
    calibrating: int = CALIBRATION
    prepared: Path | None = None

    @property
    def samples(self) -> Path:
        """The samples that calibrate, of one shape in ``.npy``, of several in ``.npz``."""
        return stored(self.folder, "samples")


def resnet8(shared: Path, folder: Path, judges: int) -> Subject:
    """ResNet-8 as ONNX, which gives logits."""
    model = folder / "float.onnx"
    if not model.exists():
        try:
            import resnet8_onnx
        except ImportError as e:
            raise Absent(f"this environment cannot read the Keras file ({e}); run the league in one that can") from e
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


def lines(shared: Path, folder: Path, judges: int) -> Subject:
    """PP-OCR's text recogniser from the distribution that holds it; drawn lines of text, each of its own width."""
    source, model = ocr.recogniser(), folder / "float.onnx"
    if source is None:
        raise Absent("the distribution rapidocr-onnxruntime, which holds the model, is not installed")
    if not model.exists():
        folder.mkdir(parents=True, exist_ok=True)
        for name, drawn in (("samples", ocr.Lines(LINES, 1)), ("judging", ocr.Lines(min(judges, 100), 2))):
            keep(folder, name, [batch["x"][0] for batch in drawn])
        write_whole(folder / "characters.json", ocr.characters(source))
        _prepare(source, folder / "prepared.onnx")
        shutil.copyfile(source, model)
    return Subject(
        "PP-OCR's recogniser, ONNX", folder, model, "x", model, calibrating=LINES, prepared=folder / "prepared.onnx"
    )


def _prepare(model: Path, to: Path) -> None:
    """Bring an old model to where scales for each channel are known, and through ONNX Runtime's preprocessing."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    newer = to.with_suffix(".newer.onnx")
    onnx.save(version_converter.convert_version(onnx.load(model), CHANNELS), newer)
    quant_pre_process(str(newer), str(to), skip_symbolic_shape=True)
    newer.unlink()


def resnet8_torch(shared: Path, folder: Path, judges: int) -> Subject:
    """The same as a program of PyTorch, of the weights of the ONNX file; the float file is ExecuTorch's."""
    try:
        import torch
        from resnet8_torch import resnet8 as network
    except ImportError as e:
        raise Absent(f"this environment has no PyTorch ({e}); run the league in one that has, too") from e
    source, weights = folder / "float.pt2", folder.parent / "resnet8" / "float.onnx"
    if not source.exists():
        if not weights.exists():
            raise Absent("its weights are those of resnet8, whose rows come first")
        _cifar(shared, folder, judges, order=(0, 3, 1, 2))
        torch.export.save(torch.export.export(network(weights), (torch.zeros(1, 3, 32, 32),)), source)
    return Subject("ResNet-8, ExecuTorch, CIFAR-10", folder, folder / "float.pte", "image", source)


SUBJECTS: dict[str, Callable[[Path, Path, int], Subject]] = {
    "resnet8": resnet8,
    "efficientnet": efficient_net,
    "resnet8-lite": resnet8_lite,
    "ocr": lines,
    "resnet8-torch": resnet8_torch,
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
