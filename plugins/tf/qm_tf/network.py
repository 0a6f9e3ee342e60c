"""A quantized .tflite graph as a trainable network: it computes in floats what LiteRT computes in integers.

The graph is the quantized file's own, so that what is simulated is what runs: each tensor that the file stores in
integers is rounded to its grid on the way, weights are rounded from float master copies, and gradients pass the
rounding as if it were not there. What is learnt is put back into the file as integers and scales.
Source: Jacob et al., "Quantization and training of neural networks", 2018; the gradient of scales is that of Esser et
al., "Learned step size quantization", 2020, equation 3.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf

from qm.plugin import Array, Unsupported
from qm_tf import flat
from qm_tf.chain import FIXED, SHARED
from qm_tf.graph import Graph, Op
from qm_tf.layer import Found, find
from qm_tf.operation import BIAS, FUNCTIONS, LINEAR, activated

Tensor = Any

LIMITS = {"INT4": (-7, 7), "INT8": (-128, 127), "INT16": (-32767, 32767)}
WEIGHTS = {"INT4": (-8, 7), "INT8": (-127, 127)}
"""The codes of weights: kernels count on there being no -128."""

FARTHEST = np.float32(np.log(4.0))
"""How far training may take a scale from where it began, as a logarithm."""

INSIDE = np.float32(0.49)
"""How far from its integer a weight may begin, in steps."""

_BORDER = frozenset({"DEQUANTIZE", "QUANTIZE"})


@dataclass
class Weight:
    """A layer's weights: what is learnt, in units of each channel's largest weight, and how the file stores them."""

    found: Found
    unit: Array
    master: tf.Variable
    log_scale: tf.Variable | None
    shape: tuple[int, ...]
    """How scales, one a channel or one for all, lie along the weight."""
    limits: tuple[int, int]

    @property
    def scale(self) -> Tensor:
        return tf.reshape(tf.exp(self.log_scale), self.shape)

    def integers(self) -> Tensor:
        """The integers that the file will hold."""
        return rounded(tf.clip_by_value(self.master * self.unit / self.scale, *self.limits))

    def value(self) -> Tensor:
        """The weights as real numbers."""
        return self.master * self.unit if self.log_scale is None else self.integers() * self.scale

    def codes(self) -> tuple[Array, Array]:
        """The integers and their scales."""
        assert self.log_scale is not None
        scale = tf.exp(self.log_scale).numpy()
        w = self.master.numpy() * self.unit
        return np.clip(np.rint(w / scale.reshape(self.shape)), *self.limits), scale


@dataclass
class Bias:
    """A layer's bias, learnt in units of a sixteenth of what the layer's result spans."""

    found: Found
    unit: float
    master: tf.Variable

    def value(self) -> Tensor:
        return self.master * self.unit


def rounded(x: Tensor) -> Tensor:
    """The nearest integers, with a gradient of one."""
    return x + tf.stop_gradient(tf.round(x) - x)


def rounded_twice(sums: Tensor, factor: Tensor) -> Tensor:
    """``sums * factor`` as integers, as LiteRT's own kernels round it; they serve what XNNPACK leaves to them.

    A factor is kept as a fraction of 0.5 to 1 and a shift; the product with the fraction is rounded first, then the
    shift rounds halves up. Seen to be exact in LiteRT 2.3.
    """
    shift = tf.pow(2.0, tf.maximum(-tf.floor(tf.math.log(factor) / tf.math.log(2.0)) - 1.0, 0.0))
    return tf.floor(tf.round(sums * factor * shift) / shift + 0.5)


class Network(tf.Module):  # type: ignore[misc]
    """The network of a quantized graph; ``floats`` is the float model that its weights come from."""

    def __init__(self, quantized: bytes, floats: bytes) -> None:
        super().__init__()
        self._model = flat.parse(quantized)
        self.graph = Graph(self._model)
        self._floats = Graph(flat.parse(floats))
        self._check()
        self._scales = self._grids()
        layers = {f.name: f for f in find(self._floats)}
        found = find(self.graph)
        self._by_buffer: dict[int, Weight] = {}
        self.weights = {f.op.number: self._weight(f, layers[f.name]) for f in found if f.kind in FUNCTIONS}
        self.biases = {f.op.number: self._bias(f) for f in found if f.bias >= 0 and f.op.number in self.weights}
        self._constants = self._other_constants()

    @property
    def input_names(self) -> list[str]:
        return [self.graph.name(t) for t in self.graph.inputs]

    def learnt(self) -> list[tf.Variable]:
        """All that is trained, in an order that stays the same."""
        weights = [v for w in self.weights.values() for v in (w.master, w.log_scale) if v is not None]
        scales = [v for v in self._scales.values() if v.trainable]
        every = [*weights, *(b.master for b in self.biases.values()), *scales]
        return list({id(v): v for v in every}.values())

    def bounded(self) -> list[tuple[tf.Variable, Array, Array]]:
        """Scales, with the least and the largest that each may come to; XNNPACK refuses extreme ratios of them."""
        scales = [w.log_scale for w in self.weights.values() if w.log_scale is not None]
        every = {id(v): v for v in [*scales, *self._scales.values()]}.values()
        return [(v, v.numpy() - FARTHEST, v.numpy() + FARTHEST) for v in every]

    def __call__(self, inputs: list[Tensor], wanted: list[int]) -> list[Tensor]:
        """The tensors of those numbers, for a batch of any length."""
        values: dict[int, Any] = dict(self._constants)
        for number, value in zip(self.graph.inputs, inputs, strict=True):
            values[number] = self._on_grid(number, value)
        for op in self.graph.ops:
            if op.outputs[0] in values:
                continue
            values.update(zip(op.outputs, self._compute(op, values), strict=False))
        return [values[number] for number in wanted]

    def _compute(self, op: Op, values: dict[int, Any]) -> list[Any]:
        """The operation's results, on their grids."""
        operands = [values.get(t) if t >= 0 else None for t in op.inputs]
        if op.kind in _BORDER:
            return [self._on_grid(op.outputs[0], operands[0])]
        if op.number in self.weights:
            weight, bias = self.weights[op.number], self.biases.get(op.number)
            if op.kind in LINEAR and weight.log_scale is not None and weight.found.data in self._scales:
                return [self._integer_layer(op, weight, bias, operands)]
            operands[weight.found.place.weights[0]] = weight.value()
            if bias is not None:
                operands[BIAS[op.kind]] = bias.value()
        made = FUNCTIONS[op.kind](operands, op.native.builtinOptions)
        results = made if isinstance(made, list) else [made]
        return [self._on_grid(t, value) for t, value in zip(op.outputs, results, strict=False)]

    def _integer_layer(self, op: Op, weight: Weight, bias: Bias | None, operands: list[Any]) -> Tensor:
        """Sums of products of integers, exact in floats up to 2**24, and rounded as the kernel rounds.

        A rounding that falls the other way is a whole step of error, and each layer after makes more of it.
        """
        place, options, output = weight.found.place, op.native.builtinOptions, weight.found.output
        step = tf.exp(self._scales[weight.found.data])
        operands[place.data] = rounded(operands[place.data] / step)
        operands[place.weights[0]] = weight.integers()
        products = step * tf.exp(weight.log_scale)  # One a channel, along the last axis of the result.
        sums = LINEAR[op.kind](operands, options)
        if bias is not None:
            sums += rounded(bias.value() / products)
        smooth = activated(sums * products, options)
        if output not in self._scales:
            return smooth
        out = tf.exp(self._scales[output])
        factor = products / out
        # XNNPACK has no convolutions with 4-bit weights.
        own = self.graph.type(weight.found.weights[0]) == "INT4" and op.kind != "FULLY_CONNECTED"
        exact = rounded_twice(sums, factor) if own else tf.round(sums * factor)
        return self._on_grid(output, smooth, activated(exact * out, options))

    def _on_grid(self, number: int, value: Any, exact: Any = None) -> Any:
        """The value rounded to the tensor's grid, where it has one; ``exact`` is the kernel's own rounding of it."""
        scale = self._scales.get(number)
        if scale is None:
            return value
        step = tf.exp(scale)
        zero = int(self.graph.tensor(number).quantization.zeroPoint[0])
        low, high = (limit - zero for limit in LIMITS[self.graph.type(number)])
        codes = tf.clip_by_value(value / step, low, high)
        made = self.graph.producer.get(number)
        if exact is not None:
            integers = tf.clip_by_value(tf.round(exact / step), low, high)
        elif made is not None and made.kind == "AVERAGE_POOL_2D":
            # That kernel rounds halves away from zero, where zero is the code 0.
            integers = tf.sign(codes + zero) * tf.floor(tf.abs(codes + zero) + 0.5) - zero
        else:
            integers = tf.round(codes)
        return (codes + tf.stop_gradient(integers - codes)) * step

    def _check(self) -> None:
        for op in self.graph.ops:
            restores = op.kind == "DEQUANTIZE" and self.graph.is_constant(op.inputs[0])
            if op.kind not in FUNCTIONS and op.kind not in _BORDER and not restores:
                raise Unsupported(
                    f"tf.qat cannot train through the operation {op.kind}",
                    hint="Use tf.ptq, or take that operation out of the model.",
                )

    def _grids(self) -> dict[int, tf.Variable]:
        """The logarithm of each integer activation's scale; tensors on one grid share a variable."""
        scales: dict[int, tf.Variable] = {}

        def variable(number: int, *, trainable: bool) -> tf.Variable:
            start = np.log(np.float32(self.graph.tensor(number).quantization.scale[0]))
            return tf.Variable(start, trainable=trainable, name=f"scale {self.graph.name(number)}")

        for number in self.graph.inputs:
            if self._rounds(number):
                scales[number] = variable(number, trainable=True)
        for op in self.graph.ops:
            for number in op.outputs:
                if not self._rounds(number):
                    continue
                twin = next(
                    (t for t in op.inputs if op.kind in SHARED and t in scales and self._alike(t, number)), None
                )
                scales[number] = scales[twin] if twin is not None else variable(number, trainable=op.kind not in FIXED)
            if op.kind in SHARED:
                self._join(op, scales)
        return scales

    def _join(self, op: Op, scales: dict[int, tf.Variable]) -> None:
        """Give the operands of a concatenation one variable where the file has one grid for all."""
        first = scales.get(op.outputs[0])
        for t in op.inputs:
            if first is not None and t in scales and scales[t] is not first and self._alike(t, op.outputs[0]):
                old = scales[t]
                for number, variable in scales.items():
                    if variable is old:
                        scales[number] = first

    def _alike(self, a: int, b: int) -> bool:
        first, second = self.graph.tensor(a).quantization, self.graph.tensor(b).quantization
        return bool(first.scale[0] == second.scale[0] and first.zeroPoint[0] == second.zeroPoint[0])

    def _rounds(self, number: int) -> bool:
        if number < 0 or self.graph.type(number) not in ("INT8", "INT16"):
            return False
        quantization = self.graph.tensor(number).quantization
        return quantization is not None and quantization.scale is not None and len(quantization.scale) == 1

    def _weight(self, f: Found, float_layer: Found) -> Weight:
        """The layer's weight; layers that share it in the float model, and are stored alike, learn one."""
        stored = self.graph.tensor(f.weights[0])
        buffer = self._floats.tensor(float_layer.weights[0]).buffer
        twin = self._by_buffer.get(buffer)
        if twin is not None and self.graph.type(twin.found.weights[0]) == flat.type_name(stored):
            return replace(twin, found=f)
        self._by_buffer[buffer] = weight = self._own_weight(f, float_layer, stored)
        return weight

    def _own_weight(self, f: Found, float_layer: Found, stored: Any) -> Weight:
        values = self._floats.array(float_layer.weights[0])
        assert values is not None
        axis = f.place.axis
        others = tuple(i for i in range(values.ndim) if i != axis % values.ndim)
        unit = np.maximum(np.abs(values).max(others, keepdims=True), 1e-6).astype(np.float32)
        kind = flat.type_name(stored)
        if kind not in WEIGHTS:
            return Weight(f, unit, tf.Variable(values / unit, name=f.name), None, (), (0, 0))
        scale = np.asarray(stored.quantization.scale, np.float32)
        shape = tuple(n if i not in others else 1 for i, n in enumerate(values.shape)) if scale.size > 1 else ()
        shape = shape or (1,) * values.ndim
        # The values nearest to the float ones that round to the integers of the file, however those were chosen.
        codes = self.graph.array(f.weights[0])
        assert codes is not None
        steps = scale.reshape(shape) if scale.size > 1 else scale[0]
        values = np.clip(values / steps, codes - INSIDE, codes + INSIDE) * steps
        log_scale = tf.Variable(np.log(scale if scale.size > 1 else scale[0]), name=f"scale {f.name}/kernel")
        return Weight(f, unit, tf.Variable(values / unit, name=f.name), log_scale, shape, WEIGHTS[kind])

    def _bias(self, f: Found) -> Bias:
        """The file's own bias: rounding may have moved it, or made one."""
        values = self.graph.array(f.bias)
        assert values is not None
        if values.dtype != np.float32:
            values = values * np.asarray(self.graph.tensor(f.bias).quantization.scale, np.float32)
        span = float(np.abs(values).max())
        if f.output in self._scales:
            span = 255 * float(self.graph.tensor(f.output).quantization.scale[0])
        unit = max(span / 16, 1e-6)
        return Bias(f, unit, tf.Variable(np.asarray(values, np.float32) / np.float32(unit), name=f"{f.name}/bias"))

    def _other_constants(self) -> dict[int, Any]:
        """Stored values that are not learnt, as real numbers."""
        trained = {t for w in self.weights.values() for t in (*w.found.weights, w.found.bias)}
        constants: dict[int, Any] = {}
        for number in range(len(self.graph.native.tensors)):
            if number in trained or not self.graph.is_constant(number):
                continue
            values = self.graph.array(number)
            quantization = self.graph.tensor(number).quantization
            if values is not None and quantization is not None and quantization.scale is not None:
                if len(quantization.scale) == 1:
                    zero, scale = np.float32(quantization.zeroPoint[0]), np.float32(quantization.scale[0])
                    values = (values.astype(np.float32) - zero) * scale
            elif values is not None and values.dtype == np.float16:
                values = values.astype(np.float32)
            constants[number] = values
        return constants

    def written(self) -> bytes:
        """The quantized file with what was learnt."""
        model = copy.deepcopy(self._model)
        graph = Graph(model)
        self._part_buffers(graph)
        for number, variable in self._scales.items():
            graph.tensor(number).quantization.scale = np.array([tf.exp(variable).numpy()], np.float32)
        for key, weight in self.weights.items():
            tensor = graph.tensor(weight.found.weights[0])
            if weight.log_scale is None:
                flat.store(model, tensor, weight.master.numpy() * weight.unit)
            else:
                codes, scales = weight.codes()
                flat.store(model, tensor, codes)
                tensor.quantization.scale = scales.reshape(-1)
            if key in self.biases:
                self._write_bias(graph, weight, self.biases[key])
        return flat.serialize(model)

    def _part_buffers(self, graph: Graph) -> None:
        """Give each weight and bias a buffer of its own: those that were equal need not stay so."""
        for key, weight in self.weights.items():
            biases = [weight.found.bias] if key in self.biases else []
            for number in (weight.found.weights[0], *biases):
                tensor = graph.tensor(number)
                graph.model.buffers.append(copy.copy(graph.model.buffers[tensor.buffer]))
                tensor.buffer = len(graph.model.buffers) - 1

    def _write_bias(self, graph: Graph, weight: Weight, bias: Bias) -> None:
        """Integer biases are on the grid of the products: the input's scale times the weights'."""
        tensor = graph.tensor(weight.found.bias)
        values = bias.value().numpy()
        if flat.type_name(tensor) == "FLOAT32":
            flat.store(graph.model, tensor, values)
            return
        _, scales = weight.codes()
        step = (scales.reshape(-1) * tf.exp(self._scales[weight.found.data]).numpy()).astype(np.float32)
        tensor.quantization.scale = step
        limits = np.iinfo(flat.DTYPES[flat.type_name(tensor)])
        flat.store(graph.model, tensor, np.clip(np.rint(values / step), limits.min, limits.max))
