"""ONNX and ONNX Runtime: what this plugin offers."""

from __future__ import annotations

from collections.abc import Iterator

from qm.plugin import Benchmark, Can, Card, Exporter, Loader, Needs, Quantizer, hookimpl
from qm_onnx.option import SCHEMES, DynamicOptions, Fp16Options, LoadOptions, PtqOptions, WeightsOptions

REQUIRES = ("onnx", "onnxruntime | onnxruntime-gpu")


@hookimpl
def qm_cards() -> Iterator[Card]:
    yield Loader(
        name="load",
        summary="ONNX files, external data included; opset, constants and batch norms put in order on the way in",
        impl="qm_onnx.load:load",
        options=LoadOptions,
        requires=REQUIRES,
        suffixes={".onnx"},
        gives="onnx",
        can={Can.LAYERS, Can.RUN, Can.ACTIVATIONS, Can.SCHEMES, Can.EXACT},
    )
    yield from _quantizers()
    yield Exporter(
        name="save",
        summary="an ONNX file, its weights beside it where it has more than 2 GB or had them there before",
        impl="qm_onnx.export:export",
        requires=REQUIRES,
        takes={"onnx"},
        gives="onnx",
        suffix=".onnx",
    )
    yield Benchmark(
        name="run",
        summary="ONNX Runtime on the CPU, with the time of each operation",
        impl="qm_onnx.session:open_session",
        requires=REQUIRES,
        takes={"onnx"},
        can={Can.PROFILE},
    )


def _quantizers() -> Iterator[Quantizer]:
    yield Quantizer(
        name="ptq",
        summary="static int8: weights and activations, ranges from a few samples, safe on the target's kernels",
        impl="qm_onnx.ptq:quantize",
        options=PtqOptions,
        requires=REQUIRES,
        takes={"onnx"},
        schemes=SCHEMES["ptq"],
        default="w8a8",
        needs=Needs.RANGES,
        layer_kinds={"Conv", "ConvTranspose", "MatMul", "Gemm"},
    )
    yield Quantizer(
        name="dynamic",
        summary="int8 weights, activations quantized as they come; needs no data",
        impl="qm_onnx.dynamic:quantize",
        options=DynamicOptions,
        requires=REQUIRES,
        takes={"onnx"},
        schemes=SCHEMES["dynamic"],
        default="w8d8",
        needs=Needs.NOTHING,
        layer_kinds={"Conv", "MatMul", "Gemm", "LSTM"},
    )
    yield Quantizer(
        name="weights",
        summary="weights only, in 8 or 4 bits, activations in float; needs no data",
        impl="qm_onnx.weights:quantize",
        options=WeightsOptions,
        requires=REQUIRES,
        takes={"onnx"},
        schemes=SCHEMES["weights"],
        default="w8",
        needs=Needs.NOTHING,
        layer_kinds={"Gather", "Gemm", "MatMul"},
    )
    yield Quantizer(
        name="fp16",
        summary="half precision: half the size, nearly the same answers; needs no data",
        impl="qm_onnx.fp16:quantize",
        options=Fp16Options,
        requires=REQUIRES,
        takes={"onnx"},
        schemes=SCHEMES["fp16"],
        default="f16",
        needs=Needs.NOTHING,
    )
