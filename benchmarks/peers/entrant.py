"""Who takes part: each tool at its default recipe, and at the best of its recipes that are known."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from peers.environment import HERE

IMAGES, LITE, TEXT, TORCH = ("resnet8", "efficientnet"), ("resnet8-lite",), ("ocr",), ("resnet8-torch",)
ONNX = (*IMAGES, *TEXT)


@dataclass(frozen=True, kw_only=True)
class Entrant:
    """A tool with one of its recipes. ``package`` is the distribution whose version names the tool's; ``from_source``
    says whether it starts from what the float file was made of."""

    tool: str
    recipe: str
    package: str
    environment: str
    script: str
    subjects: tuple[str, ...] = ONNX
    from_source: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def slug(self) -> str:
        """A name for files."""
        return re.sub(r"[^a-z0-9]+", "-", f"{self.tool} {self.recipe}".lower())


def _onnxruntime(recipe: str, subjects: tuple[str, ...] = ONNX, **options: Any) -> Entrant:
    return Entrant(
        tool="ONNX Runtime",
        recipe=recipe,
        package="onnxruntime",
        environment="onnxruntime",
        script="use_onnxruntime.py",
        subjects=subjects,
        options=options,
    )


def _nncf(recipe: str, subjects: tuple[str, ...] = ONNX, **options: Any) -> Entrant:
    return Entrant(
        tool="NNCF",
        recipe=recipe,
        package="nncf",
        environment="nncf",
        script="use_nncf.py",
        subjects=subjects,
        options=options,
    )


def _olive(recipe: str, **options: Any) -> Entrant:
    return Entrant(
        tool="Olive", recipe=recipe, package="olive-ai", environment="olive", script="use_olive.py", options=options
    )


def _aimet(recipe: str, **options: Any) -> Entrant:
    return Entrant(
        tool="AIMET", recipe=recipe, package="aimet-onnx", environment="aimet", script="use_aimet.py", options=options
    )


def _quark(recipe: str, **options: Any) -> Entrant:
    return Entrant(
        tool="Quark", recipe=recipe, package="amd-quark", environment="quark", script="use_quark.py", options=options
    )


def _compressor(recipe: str, subjects: tuple[str, ...] = ONNX, **options: Any) -> Entrant:
    return Entrant(
        tool="Neural Compressor",
        recipe=recipe,
        package="onnx-neural-compressor",
        environment="neural-compressor",
        script="use_neural_compressor.py",
        subjects=subjects,
        options=options,
    )


def _edge(recipe: str, base: str, **options: Any) -> Entrant:
    return _lite("ai-edge-quantizer", recipe, "ai-edge-quantizer", base=base, **options)


def _lite(tool: str, recipe: str, package: str, **options: Any) -> Entrant:
    return Entrant(
        tool=tool,
        recipe=recipe,
        package=package,
        environment=package,
        script=f"use_{package.replace('-', '_')}.py",
        subjects=LITE,
        from_source=package == "tensorflow",
        options=options,
    )


def _torchao(recipe: str, **options: Any) -> Entrant:
    return Entrant(
        tool="torchao",
        recipe=recipe,
        package="torchao",
        environment="torchao",
        script="use_torchao.py",
        subjects=TORCH,
        from_source=True,
        options=options,
    )


def _qm(recipe: str, method: str, subjects: tuple[str, ...] = ONNX, **options: Any) -> Entrant:
    return Entrant(
        tool="qm",
        recipe=recipe,
        package="quantized-model",
        environment=HERE,
        script="use_qm.py",
        subjects=subjects,
        from_source=subjects == TORCH,
        options={"method": method, **options},
    )


UNSIGNED = {"activation_type": "QUInt8", "weight_type": "QInt8", "per_channel": True, "prepare": True}
LAYERS = ["Conv", "MatMul", "Gemm"]
EVEN = {"equalize": True, "ranges": "mse"}
MOVED = {**EVEN, "smooth": 0.5, "balance": True}

ENTRANTS: tuple[Entrant, ...] = (
    _qm("onnx.ptq, --target x86-vnni", "onnx.ptq", target="x86-vnni"),
    _qm("onnx.ptq, --target x86-avx2", "onnx.ptq", target="x86-avx2"),
    _qm("onnx.ptq -o rounding=gptq, x86-vnni", "onnx.ptq", target="x86-vnni", rounding="gptq"),
    _qm("onnx.ptq -o rounding=gptq, x86-avx2", "onnx.ptq", target="x86-avx2", rounding="gptq"),
    _qm("onnx.ptq -o equalize=true -o ranges=mse, x86-vnni", "onnx.ptq", IMAGES, target="x86-vnni", **EVEN),
    _qm("onnx.ptq -o equalize=true -o ranges=mse, x86-avx2", "onnx.ptq", IMAGES, target="x86-avx2", **EVEN),
    _qm(
        "onnx.ptq -o rounding=gptq -o equalize=true -o ranges=mse, x86-vnni",
        "onnx.ptq",
        IMAGES,
        target="x86-vnni",
        rounding="gptq",
        **EVEN,
    ),
    _qm(
        "onnx.ptq -o rounding=gptq -o equalize=true -o ranges=mse, x86-avx2",
        "onnx.ptq",
        IMAGES,
        target="x86-avx2",
        rounding="gptq",
        **EVEN,
    ),
    _qm("onnx.ptq --scheme w4a8, x86-vnni", "onnx.ptq", target="x86-vnni", scheme="w4a8"),
    _qm(
        "onnx.ptq -o ranges=mse -o equalize=true -o smooth=0.5 -o balance=true, x86-vnni",
        "onnx.ptq",
        TEXT,
        target="x86-vnni",
        **MOVED,
    ),
    _qm(
        "onnx.ptq -o ranges=mse -o equalize=true -o smooth=0.5 -o balance=true, x86-avx2",
        "onnx.ptq",
        TEXT,
        target="x86-avx2",
        **MOVED,
    ),
    _onnxruntime("default"),
    _onnxruntime("preprocessed, U8S8 per channel", **UNSIGNED),
    _onnxruntime("preprocessed, U8S8 per channel, reduce_range", IMAGES, **UNSIGNED, reduce_range=True),
    _onnxruntime("preprocessed, U8S8 per channel, Conv and MatMul", TEXT, **UNSIGNED, op_types_to_quantize=LAYERS),
    _onnxruntime(
        "preprocessed, U8S8 per channel, reduce_range, Conv and MatMul",
        TEXT,
        **UNSIGNED,
        reduce_range=True,
        op_types_to_quantize=LAYERS,
    ),
    _olive("default"),
    _olive("U8S8 per channel", activation_type="uint8", precision="int8", per_channel=True),
    _nncf("default"),
    _nncf("mixed preset", preset="mixed"),
    _nncf("mixed preset, accurate bias correction", preset="mixed", fast_bias_correction=False),
    _nncf("for transformers, mixed preset, SmoothQuant", TEXT, preset="mixed", model_type="transformer"),
    _aimet("default"),
    _aimet("CLE", equalize=True),
    _aimet("per channel, CLE, AdaRound", config="default_config_per_channel.json", equalize=True, adaround=1000),
    _quark("A8W8, its default", config="A8W8_QCONFIG"),
    _quark("A8W8, CLE, AdaRound", config="A8W8_ADAROUND_QCONFIG", algorithms={"CLEConfig": {}}),
    _compressor("default"),
    _compressor("QDQ, per channel", quant_format="QDQ", per_channel=True),
    _compressor("SmoothQuant, per channel", TEXT, smooth=0.5, per_channel=True),
    _qm("tf.ptq", "tf.ptq", LITE),
    _qm("tf.ptq -o rounding=gptq", "tf.ptq", LITE, rounding="gptq"),
    _qm("tf.ptq --scheme w8d8", "tf.ptq", LITE, scheme="w8d8"),
    _qm("tf.ptq --scheme w8d8 -o rounding=gptq", "tf.ptq", LITE, scheme="w8d8", rounding="gptq"),
    _qm("tf.ptq --scheme w4a8", "tf.ptq", LITE, scheme="w4a8"),
    _qm("tf.ptq --scheme w4a8 -o rounding=adaround", "tf.ptq", LITE, scheme="w4a8", rounding="adaround"),
    _qm("tf.ptq --scheme w4d8", "tf.ptq", LITE, scheme="w4d8"),
    _edge("static_wi8_ai8", "static_wi8_ai8"),
    _edge("dynamic_wi8_afp32", "dynamic_wi8_afp32"),
    _edge("static, 4-bit weights by OCTAV", "static_wi8_ai8", narrow=True),
    _edge("dynamic, 4-bit weights by OCTAV", "dynamic_wi8_afp32", narrow=True),
    _lite("TensorFlow's converter", "int8", "tensorflow", scheme="int8"),
    _qm("torch.ptq", "torch.ptq", TORCH),
    _qm("torch.ptq -o rounding=gptq", "torch.ptq", TORCH, rounding="gptq"),
    _torchao("static, per channel", scheme="static", per_channel=True),
    _torchao("static, per tensor", scheme="static"),
    _torchao("dynamic, per channel", scheme="dynamic", per_channel=True),
)
