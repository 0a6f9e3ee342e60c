"""Write a synthetic transformer of any size as ONNX, one tensor in memory at a time.

    python benchmarks/large_model.py big.onnx --gib 3

Weights are normal noise, float32, in ``big.onnx.data`` beside the graph. The input is ``ids``, int64 ``(1, length)``;
the output ``scores`` is ``(length, vocabulary)``. Each block is self-attention with one head and a perceptron of four
times the width; the head is a Gemm with transB=1, as exporters write it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from onnx import NodeProto, TensorProto, helper

ALIGNED = 4096
BLOCK = 12
"""Squares of the width that the matrices of a block hold: four of attention, and two of four each."""


class Writer:
    """A graph under way, and the file that takes its tensors."""

    def __init__(self, data: BinaryIO, location: str, seed: int) -> None:
        self.nodes: list[NodeProto] = []
        self.tensors: list[TensorProto] = []
        self._data, self._location = data, location
        self._rng = np.random.default_rng(seed)

    def weight(self, name: str, rows: int, columns: int) -> str:
        """A matrix of normal noise that keeps the size of what it is multiplied by, written row by row."""
        self._data.write(b"\0" * (-self._data.tell() % ALIGNED))
        made = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[rows, columns])
        made.data_location = TensorProto.EXTERNAL
        spot = {"location": self._location, "offset": self._data.tell(), "length": 4 * rows * columns}
        for key, value in spot.items():
            made.external_data.add(key=key, value=str(value))
        scale, step = np.float32(rows**-0.5), max(1, (1 << 20) // columns)
        for start in range(0, rows, step):
            shape = (min(step, rows - start), columns)
            self._data.write((self._rng.standard_normal(shape, np.float32) * scale).tobytes())
        self.tensors.append(made)
        return name

    def add(self, kind: str, inputs: list[str], name: str, **attributes: float | list[int]) -> str:
        """An operation; the name of its result."""
        self.nodes.append(helper.make_node(kind, inputs, [f"{name}/out"], name=name, **attributes))
        return f"{name}/out"


def write(path: Path, *, nbytes: int, width: int = 4096, vocabulary: int = 8192, seed: int = 0, opset: int = 17) -> int:
    """Write a model of at least ``nbytes``, in whole blocks; the number of blocks."""
    blocks = max(1, -(-(nbytes - 8 * width * vocabulary) // (4 * BLOCK * width**2)))
    with path.with_name(path.name + ".data").open("wb") as data:
        made = Writer(data, path.name + ".data", seed)
        made.tensors += list(_constants(width))
        x = made.add("Gather", [made.weight("table", vocabulary, width), "ids"], "embed")
        for i in range(blocks):
            x = _block(made, x, width, f"block{i}")
        flat = made.add("Squeeze", [x, "first"], "flat")
        made.weight("head/w", vocabulary, width)
        made.nodes.append(helper.make_node("Gemm", [flat, "head/w"], ["scores"], name="head", transB=1))
    graph = helper.make_graph(
        made.nodes,
        "transformer",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, [1, "length"])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["length", vocabulary])],
        made.tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return blocks


def _constants(width: int) -> Iterator[TensorProto]:
    yield helper.make_tensor("ones", TensorProto.FLOAT, [width], np.ones(width, np.float32).tobytes(), raw=True)
    yield helper.make_tensor("root", TensorProto.FLOAT, [], [width**-0.5])
    yield helper.make_tensor("first", TensorProto.INT64, [1], [0])


def _block(made: Writer, x: str, width: int, name: str) -> str:
    normal = made.add("LayerNormalization", [x, "ones"], f"{name}/norm1")
    q, k, v = (
        made.add("MatMul", [normal, made.weight(f"{name}/{part}/w", width, width)], f"{name}/{part}") for part in "qkv"
    )
    turned = made.add("Transpose", [k], f"{name}/turn", perm=[0, 2, 1])
    scores = made.add("Mul", [made.add("MatMul", [q, turned], f"{name}/scores"), "root"], f"{name}/scale")
    mixed = made.add("MatMul", [made.add("Softmax", [scores], f"{name}/softmax"), v], f"{name}/mix")
    out = made.add("MatMul", [mixed, made.weight(f"{name}/o/w", width, width)], f"{name}/o")
    x = made.add("Add", [x, out], f"{name}/add1")
    normal = made.add("LayerNormalization", [x, "ones"], f"{name}/norm2")
    up = made.add("MatMul", [normal, made.weight(f"{name}/up/w", width, 4 * width)], f"{name}/up")
    active = made.add("Relu", [up], f"{name}/relu")
    down = made.add("MatMul", [active, made.weight(f"{name}/down/w", 4 * width, width)], f"{name}/down")
    return made.add("Add", [x, down], f"{name}/add2")


def main() -> None:
    """Write the model that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path)
    parser.add_argument("--gib", type=float, default=3.0)
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--vocabulary", type=int, default=8192)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    blocks = write(
        args.path, nbytes=int(args.gib * 2**30), width=args.width, vocabulary=args.vocabulary, seed=args.seed
    )
    print(f"{args.path}: {blocks} blocks")


if __name__ == "__main__":
    main()
