"""Integer weights, activations quantized as they come: ``w8d8`` per channel, ``w8d8t`` per tensor.

What multiplies, and why (ONNX Runtime 1.31.1, one thread, against its float kernels):

- MatMul, Gemm: MatMulInteger. For 64 x 384 x 1536 with VNNI, int8 weights run 3.4 times as fast as float, uint8 ones
  1.4 times. Without VNNI int8 weights saturate; pair-safe scales avoid it at 1.7 times the float speed, uint8 ones at
  1.3 times. On the MiniLM encoder without VNNI: pair-safe 19.3 dB, uint8 18.9 dB, full-range int8 17.8 dB.
- Conv: ConvInteger, uint8 weights on every CPU: its kernel for int8 weights is four to five times slower. Dense
  convolutions run at about the float speed, depthwise ones at a fifth of it.
- LSTM: DynamicQuantizeLSTM, uint8 weights: as fast as int8 ones with VNNI, and they do not saturate without.

Weights are symmetric; uint8 ones have the zero point 128.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from onnx import NodeProto, TensorProto, helper

from qm.numerics.affine import Grid, grid_for, grid_for_range
from qm.numerics.affine import quantize as quantized
from qm.numerics.saturation import pair_safe_scales
from qm.plugin import Array, Granularity, Notes, QuantizeJob, Scheme, Target
from qm_onnx.graph import Scope, attribute, integer
from qm_onnx.model import OnnxModel
from qm_onnx.rewrite import MICROSOFT, Rewrite, attributes, rewrite

Nodes = list[NodeProto]


@dataclass
class Work:
    """A rewrite, and what its parts share."""

    rewrite: Rewrite
    notes: Notes
    target: Target
    activations: dict[tuple[int, str], tuple[str, str, str]] = field(default_factory=dict)

    def activation(self, scope: Scope, name: str) -> tuple[Nodes, tuple[str, str, str]]:
        """Integers, scale and zero point of an activation, and the node that makes them where none did before."""
        key = (id(scope.graph), name)
        if key in self.activations:
            return [], self.activations[key]
        integers, scale, zero = made = [self.rewrite.fresh(f"{name}/{part}") for part in ("integers", "scale", "zero")]
        self.activations[key] = integers, scale, zero
        return [self.node("DynamicQuantizeLinear", [name], made, f"{name}/quantize")], (integers, scale, zero)

    def stored(self, scope: Scope, node: NodeProto, w: Array, grid: Grid) -> tuple[str, str]:
        """Names of the integer weights and of their zero point."""
        integers, zero = quantized(w, grid), grid.zero_point.max().astype(grid.dtype)
        return (
            self.rewrite.tensor(scope.graph, f"{node.name}/weight", integers),
            self.rewrite.tensor(scope.graph, f"{node.name}/weight_zero", np.asarray(zero)),
        )

    def rescaled(self, scope: Scope, node: NodeProto, sums: str, x_scale: str, scale: Array, bias: str | None) -> Nodes:
        """From int32 sums to the layer's output: ``sums * (x_scale * scale) + bias``."""
        # In this order ONNX Runtime fuses it with MatMulInteger into one kernel.
        constant = self.rewrite.tensor(scope.graph, f"{node.name}/scale", np.asarray(scale, np.float32))
        floats, both, out = (self.rewrite.fresh(f"{node.name}/{part}") for part in ("floats", "step", "product"))
        last = out if bias else node.output[0]
        nodes = [
            self.node("Cast", [sums], [floats], floats, to=TensorProto.FLOAT),
            self.node("Mul", [x_scale, constant], [both], both),
            self.node("Mul", [floats, both], [last], out),
        ]
        if bias:
            nodes.append(self.node("Add", [out, bias], [node.output[0]], f"{node.name}/add"))
        return nodes

    def node(self, kind: str, inputs: list[str], outputs: list[str], stem: str, **attributes: object) -> NodeProto:
        """A node under a new name."""
        return helper.make_node(kind, inputs, outputs, name=self.rewrite.fresh(stem), **attributes)


def quantize(job: QuantizeJob) -> OnnxModel:
    """The model with the layers of the plan computed in integers, their activations quantized at run time.

    A layer that ONNX Runtime has no such kernel for stays in float, with a note.
    """
    model, change = rewrite(job, "dynamic")
    work = Work(change, job.notes, job.target)
    for scope, node, scheme in job.progress.track(work.rewrite.planned(job.plan), "quantize"):
        replace = _REPLACE.get(node.op_type)
        made = replace(work, scope, node, scheme) if replace else None
        if made is None:
            name = scope.path + node.name
            job.notes.say(f"{name}: stays in float, since no dynamic integer kernel does this {node.op_type}")
        else:
            work.rewrite.replace(scope, node, made)
    return model.with_proto(work.rewrite.finish(MICROSOFT))


def _matmul(work: Work, scope: Scope, node: NodeProto, scheme: Scheme) -> Nodes | None:
    b = work.rewrite.weight(scope, node.input[1])
    if b is None:
        return None
    return _product(work, scope, node, b, scheme, data=node.input[0], bias=None)


def _gemm(work: Work, scope: Scope, node: NodeProto, scheme: Scheme) -> Nodes | None:
    """``alpha * A' @ B' + beta * C``: the transposes and alpha go into the weights, beta into a constant C."""
    b = work.rewrite.weight(scope, node.input[1])
    if b is None:
        return None
    b = np.ascontiguousarray(_real(node, "alpha") * (b.T if integer(node, "transB", 0) else b))
    before: Nodes = []
    data = node.input[0]
    if integer(node, "transA", 0):
        data = work.rewrite.fresh(f"{data}/transposed")
        before.append(work.node("Transpose", [node.input[0]], [data], data, perm=[1, 0]))
    bias = node.input[2] if len(node.input) > 2 else ""
    if bias and (beta := _real(node, "beta")) != 1:
        factor = work.rewrite.tensor(scope.graph, f"{node.name}/beta", np.float32(beta))
        scaled = work.rewrite.fresh(f"{bias}/scaled")
        before.append(work.node("Mul", [bias, factor], [scaled], scaled))
        bias = scaled
    return [*before, *_product(work, scope, node, b, scheme, data=data, bias=bias or None)]


def _product(
    work: Work, scope: Scope, node: NodeProto, b: Array, scheme: Scheme, *, data: str, bias: str | None
) -> Nodes:
    """``data @ b + bias`` in integers; ``b`` is ``(..., k, n)`` or ``(k,)``."""
    nodes, (x, x_scale, x_zero) = work.activation(scope, data)
    grid = _product_grid(work, b, scheme)
    stored = work.stored(scope, node, b, grid)
    sums = work.rewrite.fresh(f"{node.name}/sums")
    multiply = helper.make_node("MatMulInteger", [x, stored[0], x_zero, stored[1]], [sums], name=node.name)
    return [*nodes, multiply, *work.rescaled(scope, node, sums, x_scale, grid.scale, bias)]


def _product_grid(work: Work, b: Array, scheme: Scheme) -> Grid:
    name, saturates = work.target.name, work.target.pair_saturates
    axis = b.ndim - 1 if scheme.granularity is Granularity.CHANNEL and b.ndim > 1 else None
    if saturates is None:
        work.notes.say(f"MatMul and Gemm weights are uint8, since whether int8 ones saturate on {name!r} is not known")
        return grid_for(b, signed=False, axis=axis)
    if not saturates:
        work.notes.say(f"MatMul and Gemm weights are int8 at full range, since {name!r} adds 8-bit products in 32 bits")
        return grid_for(b, axis=axis)
    work.notes.say(f"MatMul and Gemm weights are int8 with pair-safe scales, since int8 kernels saturate on {name!r}")
    columns = np.swapaxes(b, -1, -2) if b.ndim > 1 else b[None]
    scales = pair_safe_scales(columns.reshape(-1, columns.shape[-1])).reshape(-1, columns.shape[-2]).max(axis=0)
    return Grid(scale=scales if axis is not None else np.asarray(scales.max()), narrow=True, axis=axis)


def _conv(work: Work, scope: Scope, node: NodeProto, scheme: Scheme) -> Nodes | None:
    w = work.rewrite.weight(scope, node.input[1])
    if w is None:
        return None
    if integer(node, "group", 1) > 1 == w.shape[1]:
        work.notes.say(
            f"{node.name}: a depthwise convolution; ONNX Runtime's integer kernel for it is slower than float"
        )
    nodes, (x, x_scale, x_zero) = work.activation(scope, node.input[0])
    grid = grid_for(w, signed=False, axis=0 if scheme.granularity is Granularity.CHANNEL else None)
    stored = work.stored(scope, node, w, grid)
    sums = work.rewrite.fresh(f"{node.name}/sums")
    inputs = [x, stored[0], x_zero, stored[1]]
    convolve = helper.make_node("ConvInteger", inputs, [sums], name=node.name, **attributes(node))
    along = (-1, *[1] * (w.ndim - 2))
    before, bias = _conv_bias(work, scope, node, along)
    scale = grid.scale.reshape(along) if grid.axis is not None else grid.scale
    return [*nodes, *before, convolve, *work.rescaled(scope, node, sums, x_scale, scale, bias)]


def _conv_bias(work: Work, scope: Scope, node: NodeProto, along: tuple[int, ...]) -> tuple[Nodes, str | None]:
    """The bias in a shape that broadcasts over an image, and the node that reshapes it where it is computed."""
    if len(node.input) < 3 or not node.input[2]:
        return [], None
    bias = work.rewrite.weight(scope, node.input[2])
    if bias is not None:
        return [], work.rewrite.tensor(scope.graph, f"{node.name}/bias", bias.reshape(along))
    shape = work.rewrite.tensor(scope.graph, f"{node.name}/bias_shape", np.array(along, np.int64))
    name = work.rewrite.fresh(f"{node.name}/bias")
    return [work.node("Reshape", [node.input[2], shape], [name], name)], name


def _lstm(work: Work, scope: Scope, node: NodeProto, scheme: Scheme) -> Nodes | None:
    """The operator takes both weights as ``(directions, in, 4 * hidden)``, scales as ``(directions, 4 * hidden)``."""
    pair = [work.rewrite.weight(scope, node.input[i]) for i in (1, 2)]
    if integer(node, "layout", 0) or any(w is None for w in pair):
        return None
    inputs = [*node.input, *[""] * (8 - len(node.input))]
    home = work.rewrite.home(scope, node)
    scales: list[str] = []
    for i, (w, part) in enumerate(zip(pair, ("input", "recurrent"), strict=True), 1):
        assert w is not None
        scale = _lstm_scale(w, scheme)
        rows = np.clip(np.rint(w / scale.reshape(len(w), -1, 1)), -127, 127) + 128
        stem = f"{node.name}/{part}"
        integers = np.ascontiguousarray(rows.astype(np.uint8).swapaxes(1, 2))
        inputs[i] = work.rewrite.tensor(home, f"{stem}/weight", integers)
        zero = np.full(scale.shape, 128, np.uint8)
        scales.append(work.rewrite.tensor(scope.graph, f"{stem}/scale", scale))
        scales.append(work.rewrite.tensor(scope.graph, f"{stem}/zero_point", zero))
    known = {k: v for k, v in attributes(node).items() if k != "layout"}
    outputs = list(node.output)
    made = helper.make_node(
        "DynamicQuantizeLSTM", [*inputs, *scales], outputs, name=node.name, domain=MICROSOFT, **known
    )
    return [made]


def _lstm_scale(w: Array, scheme: Scheme) -> Array:
    """Scales ``(directions, 4 * hidden)``, or ``(directions,)`` where a whole direction shares one."""
    largest = np.abs(w).max(axis=2 if scheme.granularity is Granularity.CHANNEL else (1, 2), initial=0)
    return grid_for_range(-largest, largest, symmetric=True, signed=True, narrow=True).scale


def _real(node: NodeProto, name: str) -> np.float32:
    found = attribute(node, name)
    return np.float32(1 if found is None else found.f)


_REPLACE: dict[str, Callable[[Work, Scope, NodeProto, Scheme], Nodes | None]] = {
    "Conv": _conv,
    "Gemm": _gemm,
    "LSTM": _lstm,
    "MatMul": _matmul,
}
