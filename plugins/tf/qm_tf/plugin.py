"""TensorFlow, Keras and LiteRT: what this plugin offers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from qm.plugin import Benchmark, Can, Card, Exporter, Loader, Needs, Quantizer, hookimpl
from qm_tf.option import INSTEAD, KINDS, PTQ, QAT, PtqOptions, QatOptions

LITE = ("ai-edge-litert",)
TENSORFLOW = (*LITE, "tensorflow | tensorflow-cpu", "keras")
CAN = frozenset({Can.LAYERS, Can.RUN, Can.ACTIVATIONS, Can.SCHEMES})
SOURCES = frozenset({"keras", "saved_model"})


@hookimpl
def qm_cards() -> Iterator[Card]:
    yield from _loaders()
    yield from _quantizers()
    yield Exporter(
        name="save",
        summary="a .tflite file",
        impl="qm_tf.export:export",
        requires=LITE,
        takes={"tflite"} | SOURCES,
        gives="tflite",
        suffix=".tflite",
    )
    yield Benchmark(
        name="run",
        summary="LiteRT with XNNPACK on the CPU; each operation can be timed alone",
        impl="qm_tf.session:open_session",
        requires=LITE,
        takes={"tflite"},
        can={Can.PROFILE},
    )


def is_saved_model(path: Path) -> bool:
    """Whether the folder is a SavedModel."""
    return (path / "saved_model.pb").is_file() or (path / "saved_model.pbtxt").is_file()


def _loaders() -> Iterator[Loader]:
    yield Loader(
        name="load",
        summary="TensorFlow Lite files, tensor names put in order on the way in; needs no TensorFlow",
        impl="qm_tf.load:load",
        requires=LITE,
        suffixes={".tflite"},
        gives="tflite",
        can=CAN,
    )
    yield Loader(
        name="keras",
        summary="Keras files, of Keras 3 and of the Keras before it, converted to TensorFlow Lite once",
        impl="qm_tf.convert:load_keras",
        requires=TENSORFLOW,
        suffixes={".h5", ".hdf5", ".keras"},
        gives="keras",
        can=CAN,
    )
    yield Loader(
        name="saved-model",
        summary="SavedModel folders, converted to TensorFlow Lite once",
        impl="qm_tf.convert:load_saved_model",
        requires=TENSORFLOW,
        suffixes={"/"},
        gives="saved_model",
        can=CAN,
        sniff=is_saved_model,
    )


def _quantizers() -> Iterator[Quantizer]:
    yield Quantizer(
        name="ptq",
        summary="post-training quantization: int8, dynamic range, int16 activations, 4-bit weights, half precision",
        impl="qm_tf.ptq:quantize",
        options=PtqOptions,
        requires=(*LITE, "ai-edge-quantizer"),
        takes={"tflite"} | SOURCES,
        gives="tflite",
        schemes=PTQ,
        default="w8a8",
        default_without_data="w8d8",
        needs=Needs.RANGES,
        layer_kinds=frozenset(KINDS),
        kinds=KINDS,
        instead=INSTEAD,
    )
    yield Quantizer(
        name="qat",
        summary="quantization-aware training: learns to answer as the float model does, with or without labels",
        impl="qm_tf.qat:quantize",
        options=QatOptions,
        requires=(*TENSORFLOW, "ai-edge-quantizer"),
        takes={"tflite"} | SOURCES,
        gives="tflite",
        schemes=QAT,
        default="w8a8",
        needs=Needs.DATA,
        samples=None,
        layer_kinds={"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"},
        kinds=KINDS,
        instead=INSTEAD,
    )
