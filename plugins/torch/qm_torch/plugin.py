"""PyTorch: what this plugin offers."""

from __future__ import annotations

from collections.abc import Iterator

from qm.plugin import Benchmark, Can, Card, Exporter, Loader, Needs, Quantizer, hookimpl
from qm_torch.archive import is_package, is_program
from qm_torch.option import DYNAMIC, PTQ, QAT, WEIGHTS, FactoryOptions, PtqOptions, QatOptions

TORCH = ("torch", "torchao")
EXECUTORCH = (*TORCH, "executorch")
ONNX = (*TORCH, "onnx", "onnxscript")
CAN = frozenset({Can.LAYERS, Can.RUN, Can.ACTIVATIONS, Can.SCHEMES})


@hookimpl
def qm_cards() -> Iterator[Card]:
    yield from _loaders()
    yield from _compiled()
    yield from _quantizers()
    yield from _exporters()
    yield from _benchmarks()


def _loaders() -> Iterator[Loader]:
    yield Loader(
        name="load",
        summary="programs that torch.export.save wrote; what is pickled is refused, and nothing in the file is run",
        impl="qm_torch.load:load",
        requires=TORCH,
        suffixes={".pt", ".pt2", ".pth"},
        gives="torch",
        can=CAN,
        sniff=is_program,
    )
    yield Loader(
        name="factory",
        summary="a function, package.module:function, that returns a module and example inputs; exported once",
        impl="qm_torch.factory:load",
        options=FactoryOptions,
        requires=TORCH,
        suffixes={":"},
        gives="torch",
        can=CAN,
    )


def _compiled() -> Iterator[Loader]:
    yield Loader(
        name="load-package",
        summary="packages of AOTInductor, by what they say of themselves: machine code is run for answers alone",
        impl="qm_torch.compiled:load_package",
        requires=TORCH,
        suffixes={".pt2"},
        gives="aoti",
        can={Can.LAYERS, Can.RUN, Can.SCHEMES},
        sniff=is_package,
    )
    yield Loader(
        name="load-pte",
        summary="ExecuTorch programs, by what those that were written here say of themselves",
        impl="qm_torch.compiled:load_pte",
        requires=EXECUTORCH,
        extra="executorch",
        suffixes={".pte"},
        gives="pte",
        can={Can.LAYERS, Can.RUN, Can.SCHEMES},
    )


def _quantizers() -> Iterator[Quantizer]:
    yield Quantizer(
        name="ptq",
        summary="static int8 for convolutions and linear layers, 4-bit weights in .pt2 packages; ranges from samples",
        impl="qm_torch.ptq:quantize",
        options=PtqOptions,
        requires=TORCH,
        takes={"torch"},
        schemes=frozenset().union(*PTQ.values()),
        default="w8a8",
        needs=Needs.DATA,
        layer_kinds=frozenset(PTQ),
        kinds=PTQ,
    )
    yield Quantizer(
        name="qat",
        summary="quantization-aware training: learns to answer as the float model does, with or without labels",
        impl="qm_torch.qat:quantize",
        options=QatOptions,
        requires=TORCH,
        takes={"torch"},
        schemes=frozenset().union(*QAT.values()),
        default="w8a8",
        needs=Needs.DATA,
        samples=None,
        layer_kinds=frozenset(QAT),
        kinds=QAT,
    )
    yield Quantizer(
        name="dynamic",
        summary="int8 linear layers with ranges found at each run, by rows of the activations; needs no data",
        impl="qm_torch.dynamic:quantize",
        requires=TORCH,
        takes={"torch"},
        schemes=frozenset().union(*DYNAMIC.values()),
        default="w8d8",
        needs=Needs.NOTHING,
        layer_kinds=frozenset(DYNAMIC),
        kinds=DYNAMIC,
    )
    yield Quantizer(
        name="weights",
        summary="weights of 8 or 4 bits, embeddings too, computed with in float: a small .pt2 package, no faster",
        impl="qm_torch.weights:quantize",
        requires=TORCH,
        takes={"torch"},
        schemes=frozenset().union(*WEIGHTS.values()),
        default="w8",
        needs=Needs.NOTHING,
        layer_kinds=frozenset(WEIGHTS),
        kinds=WEIGHTS,
    )


def _exporters() -> Iterator[Exporter]:
    yield Exporter(
        name="package",
        summary="a .pt2 package compiled by AOTInductor for the CPU of this machine; needs a C++ compiler",
        impl="qm_torch.package:export",
        requires=TORCH,
        ready="qm_torch.compiler:check_compiler",
        takes={"torch"},
        gives="aoti",
        suffix=".pt2",
    )
    yield Exporter(
        name="pte",
        summary="a .pte file for ExecuTorch, with XNNPACK for all that it takes",
        impl="qm_torch.lower:export",
        requires=EXECUTORCH,
        extra="executorch",
        takes={"torch"},
        gives="pte",
        suffix=".pte",
    )
    yield Exporter(
        name="onnx",
        summary="a float .onnx file, so that onnx.ptq, onnx.dynamic and onnx.weights can take it from there",
        impl="qm_torch.interchange:export",
        requires=ONNX,
        extra="torch-onnx",
        takes={"torch"},
        gives="onnx",
        suffix=".onnx",
        float_only=True,
    )


def _benchmarks() -> Iterator[Benchmark]:
    yield Benchmark(
        name="run-package",
        summary="a package of AOTInductor on the CPU it was compiled for",
        impl="qm_torch.session:open_package",
        requires=TORCH,
        takes={"aoti"},
    )
    yield Benchmark(
        name="run-pte",
        summary="ExecuTorch with XNNPACK on the CPU",
        impl="qm_torch.pte:open_session",
        requires=EXECUTORCH,
        extra="executorch",
        takes={"pte"},
    )
