"""Who takes part: each tool at its default recipe, and at the best of its recipes that are known."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from peers.environment import HERE

ONNX, LITE = ("resnet8", "efficientnet"), ("resnet8-lite",)


@dataclass(frozen=True, kw_only=True)
class Entrant:
    """A tool with one of its recipes. ``package`` is the distribution whose version names the tool's."""

    tool: str
    recipe: str
    package: str
    environment: str
    script: str
    subjects: tuple[str, ...] = ONNX
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def slug(self) -> str:
        """A name for files."""
        return re.sub(r"[^a-z0-9]+", "-", f"{self.tool} {self.recipe}".lower())


def _onnxruntime(recipe: str, **options: Any) -> Entrant:
    return Entrant(
        tool="ONNX Runtime",
        recipe=recipe,
        package="onnxruntime",
        environment="onnxruntime",
        script="use_onnxruntime.py",
        options=options,
    )


def _nncf(recipe: str, **options: Any) -> Entrant:
    return Entrant(
        tool="NNCF", recipe=recipe, package="nncf", environment="nncf", script="use_nncf.py", options=options
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


def _compressor(recipe: str, **options: Any) -> Entrant:
    return Entrant(
        tool="Neural Compressor",
        recipe=recipe,
        package="onnx-neural-compressor",
        environment="neural-compressor",
        script="use_neural_compressor.py",
        options=options,
    )


def _edge(recipe: str, base: str, **options: Any) -> Entrant:
    return _lite("ai-edge-quantizer", recipe, "ai-edge-quantizer", base=base, **options)


def _lite(tool: str, recipe: str, package: str, **options: Any) -> Entrant:
    script = f"use_{package.replace('-', '_')}.py"
    return Entrant(
        tool=tool, recipe=recipe, package=package, environment=package, script=script, subjects=LITE, options=options
    )


def _qm(recipe: str, method: str, subjects: tuple[str, ...] = ONNX, **options: Any) -> Entrant:
    return Entrant(
        tool="qm",
        recipe=recipe,
        package="quantized-model",
        environment=HERE,
        script="use_qm.py",
        subjects=subjects,
        options={"method": method, **options},
    )


UNSIGNED = {"activation_type": "QUInt8", "weight_type": "QInt8", "per_channel": True, "prepare": True}

ENTRANTS: tuple[Entrant, ...] = (
    _qm("onnx.ptq, --target x86-vnni", "onnx.ptq", target="x86-vnni"),
    _qm("onnx.ptq, --target x86-avx2", "onnx.ptq", target="x86-avx2"),
    _qm("onnx.ptq -o rounding=gptq, x86-vnni", "onnx.ptq", target="x86-vnni", rounding="gptq"),
    _qm("onnx.ptq -o rounding=gptq, x86-avx2", "onnx.ptq", target="x86-avx2", rounding="gptq"),
    _qm("onnx.ptq --scheme w4a8, x86-vnni", "onnx.ptq", target="x86-vnni", scheme="w4a8"),
    _onnxruntime("default"),
    _onnxruntime("preprocessed, U8S8 per channel", **UNSIGNED),
    _onnxruntime("preprocessed, U8S8 per channel, reduce_range", **UNSIGNED, reduce_range=True),
    _olive("default"),
    _olive("U8S8 per channel", activation_type="uint8", precision="int8", per_channel=True),
    _nncf("default"),
    _nncf("mixed preset", preset="mixed"),
    _nncf("mixed preset, accurate bias correction", preset="mixed", fast_bias_correction=False),
    _aimet("default"),
    _aimet("CLE", equalize=True),
    _aimet("per channel, CLE, AdaRound", config="default_config_per_channel.json", equalize=True, adaround=1000),
    _quark("A8W8, its default", config="A8W8_QCONFIG"),
    _quark("A8W8, CLE, AdaRound", config="A8W8_ADAROUND_QCONFIG", algorithms={"CLEConfig": {}}),
    _compressor("default"),
    _compressor("QDQ, per channel", quant_format="QDQ", per_channel=True),
    _qm("tf.ptq", "tf.ptq", LITE),
    _qm("tf.ptq --scheme w8d8", "tf.ptq", LITE, scheme="w8d8"),
    _qm("tf.ptq --scheme w4a8", "tf.ptq", LITE, scheme="w4a8"),
    _qm("tf.ptq --scheme w4d8", "tf.ptq", LITE, scheme="w4d8"),
    _edge("static_wi8_ai8", "static_wi8_ai8"),
    _edge("dynamic_wi8_afp32", "dynamic_wi8_afp32"),
    _edge("static, 4-bit weights by OCTAV", "static_wi8_ai8", narrow=True),
    _edge("dynamic, 4-bit weights by OCTAV", "dynamic_wi8_afp32", narrow=True),
    _lite("TensorFlow's converter", "int8", "tensorflow", scheme="int8"),
)
