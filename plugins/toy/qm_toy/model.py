"""A perceptron of dense layers, run in NumPy; quantized layers multiply integers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from qm.plugin import Activations, Array, Batch, Layer, Model, Operator, Scheme, TensorSpec, UsageError
from qm_toy.weight import Packed, Weight

ACTIVATION_BITS = 8


@dataclass(frozen=True, kw_only=True)
class Dense:
    """``relu(input @ weight.T + bias)``; layers of one ``tensor`` name share one weight.

    ``span`` holds the smallest and largest input of a layer with static activations.
    """

    name: str
    tensor: str
    weight: Weight
    bias: Array
    relu: bool = False
    activations: Activations = Activations.FLOAT
    span: tuple[float, float] | None = None

    @property
    def scheme(self) -> Scheme:
        """What the layer is in, as stored."""
        stored = self.weight.scheme
        if self.activations is Activations.FLOAT:
            return stored
        return replace(stored, activations=self.activations, activation_bits=ACTIVATION_BITS)

    @property
    def is_integer(self) -> bool:
        """Whether the layer multiplies integers."""
        return isinstance(self.weight, Packed) and self.activations is not Activations.FLOAT

    def run(self, x: Array) -> Array:
        """The layer's output ``(batch, out)`` for an input ``(batch, in)``."""
        if isinstance(self.weight, Packed) and self.activations is not Activations.FLOAT:
            product = self._integer_product(x, self.weight)
        else:
            product = x @ self.weight.values().T
        y = product + self.bias
        return (np.maximum(y, 0) if self.relu else y).astype(np.float32)

    def _integer_product(self, x: Array, weight: Packed) -> Array:
        low, high = self.span or (x.min(axis=1, keepdims=True), x.max(axis=1, keepdims=True))
        integers, scale = quantize_activations(x, np.asarray(low), np.asarray(high))
        groups = weight.scale.shape[1]
        inputs = integers.reshape(len(x), groups, -1)
        weights = weight.integers().reshape(weight.shape[0], groups, -1)
        sums = np.einsum("bgk,ogk->bog", inputs, weights)
        product: Array = (sums * weight.scale).sum(axis=2) * scale
        return product


def quantize_activations(x: Array, low: Array, high: Array) -> tuple[Array, Array]:
    """``x`` as integers less their zero point, in int32, and the scale.

    Source: Jacob et al., "Quantization and training of neural networks", 2018, equation 1; the range is widened to hold
    zero, so that zero is exact.
    """
    low, high = np.minimum(low, 0.0), np.maximum(high, 0.0)
    steps = 2**ACTIVATION_BITS - 1
    scale = np.where(high > low, (high - low) / steps, 1.0).astype(np.float32)
    zero = np.rint(-low / scale)
    integers = np.clip(np.rint(x / scale) + zero, 0, steps) - zero
    return integers.astype(np.int32), scale


class ToyModel(Model):
    """Dense layers, one after the other; ``native`` is the tuple of them."""

    format: ClassVar[str] = "toy"

    def __init__(self, layers: Sequence[Dense]) -> None:
        self._layers = tuple(layers)

    @property
    def native(self) -> tuple[Dense, ...]:
        """The layers."""
        return self._layers

    def inputs(self) -> list[TensorSpec]:
        """One input, ``x``."""
        return [TensorSpec(name="x", shape=(None, self._layers[0].weight.shape[1]), dtype="float32")]

    def outputs(self) -> list[TensorSpec]:
        """One output, ``y``."""
        return [TensorSpec(name="y", shape=(None, self._layers[-1].weight.shape[0]), dtype="float32")]

    def nbytes(self) -> int:
        """Bytes of weights, scales and biases; shared weights count once."""
        weights = {layer.tensor: layer.weight.nbytes for layer in self._layers}
        return sum(weights.values()) + sum(layer.bias.nbytes for layer in self._layers)

    def layers(self) -> list[Layer]:
        """The layers in order."""
        tensors = [layer.tensor for layer in self._layers]
        return [_describe(layer, tied=tensors.count(layer.tensor) > 1) for layer in self._layers]

    def operators(self) -> list[Operator]:
        """One operation a layer; it computes in integers where weights and activations do."""
        return [Operator(name=m.name, kind="Dense", layer=m.name, integer=_is_integer(m.scheme)) for m in self._layers]

    def run(self, batch: Batch, watch: Sequence[str] = ()) -> dict[str, Array]:
        """The output ``y``, and what the watched layers put out, after their ReLU."""
        names = [layer.name for layer in self._layers]
        for name in watch:
            if name not in names:
                raise UsageError(f"there is no layer {name!r}", hint=f"The layers are: {', '.join(names)}.")
        seen = {layer.name: y for layer, y in self.walk(batch)}
        return {"y": seen[names[-1]], **{name: seen[name] for name in watch}}

    def walk(self, batch: Batch) -> Iterator[tuple[Dense, Array]]:
        """Each layer with its output, while the batch passes through."""
        x = self._checked(batch)
        for layer in self._layers:
            x = layer.run(x)
            yield layer, x

    def schemes(self) -> dict[str, Scheme]:
        """What each layer is stored and computed in."""
        return {layer.name: layer.scheme for layer in self._layers}

    def _checked(self, batch: Batch) -> Array:
        spec = self.inputs()[0]
        if spec.name not in batch:
            came = ", ".join(batch) or "nothing"
            raise UsageError(f"the input {spec.name!r} is missing: {came} came", hint=f"Name the array {spec.name!r}.")
        x = np.asarray(batch[spec.name], np.float32)
        if x.ndim != 2 or x.shape[1] != spec.shape[1]:
            raise UsageError(f"input {str(spec)!r} got shape {list(x.shape)}", hint=f"Give it [?, {spec.shape[1]}].")
        return x


def _is_integer(scheme: Scheme) -> bool:
    return scheme.is_integer and scheme.activations is not Activations.FLOAT


def _describe(layer: Dense, *, tied: bool) -> Layer:
    outputs, inputs = layer.weight.shape
    size = outputs * inputs
    return Layer(name=layer.name, kind="Dense", weights=size, macs=size, tied=layer.tensor if tied else None)
