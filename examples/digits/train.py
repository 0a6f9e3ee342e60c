"""Train the digit classifier of ``qm demo`` and write it as ONNX, with the samples it was not trained on.

Needs torch, onnx and scikit-learn; the project itself needs none of them for the demo, since the two files that this
script writes are part of the package. Run from the root of the repository: ``python examples/digits/train.py``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from torch import Tensor, nn

SEED = 7
TRAIN = 1000
CHANNELS = (1, 32, 32, 64, 32)
"""Channels in, then out of each convolution; the image is halved after the third."""
POOL_AFTER = 3
PLACE = Path(__file__).parents[2] / "core" / "qm" / "demo"

Array = NDArray[np.float32]


def network() -> nn.Sequential:
    """Four convolutions with batch norm, and a fully connected layer. The input is divided by 16 before it."""
    parts: list[nn.Module] = []
    for number, (before, after) in enumerate(pairwise(CHANNELS), 1):
        parts += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        if number == POOL_AFTER:
            parts.append(nn.MaxPool2d(2))
    return nn.Sequential(*parts, nn.Flatten(), nn.Dropout(0.2), nn.Linear(CHANNELS[-1] * 16, 10))


def shifted(x: Tensor, generator: torch.Generator) -> Tensor:
    """The images, each moved by up to one pixel in either direction."""
    padded = nn.functional.pad(x, (1, 1, 1, 1))
    moves = torch.randint(0, 3, (len(x), 2), generator=generator)
    return torch.stack([p[:, dy : dy + 8, dx : dx + 8] for p, (dy, dx) in zip(padded, moves.tolist(), strict=True)])


def train(net: nn.Sequential, x: Tensor, y: Tensor, *, epochs: int) -> None:
    """Adam with a one-cycle schedule, on shifted images."""
    generator = torch.Generator().manual_seed(SEED)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=epochs * (len(x) // 50))
    net.train()
    for _ in range(epochs):
        order = torch.randperm(len(x), generator=generator)
        for part in order.split(50):
            loss = nn.functional.cross_entropy(net(shifted(x[part], generator)), y[part], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    net.eval()


def to_onnx(net: nn.Sequential) -> onnx.ModelProto:
    """The network as ONNX, opset 17, the division by 16 inside, batch norms as they are."""
    nodes = [helper.make_node("Div", ["image", "sixteen"], ["scaled"], name="scale")]
    constants = {"sixteen": np.float32(16)}
    tensor = "scaled"
    for node, weights in _nodes(net):
        nodes.append(node)
        node.input.insert(0, tensor)
        constants |= weights
        tensor = node.output[0]
    nodes[-1].output[0] = "logits"
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 10])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, producer_name="qm digits example", opset_imports=opset, ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def _nodes(net: nn.Sequential) -> Iterator[tuple[onnx.NodeProto, dict[str, Array]]]:
    """A node for each part, its first input left out, with its weights by name."""
    kinds: dict[type, tuple[str, tuple[str, ...]]] = {
        nn.Conv2d: ("Conv", ("weight",)),
        nn.BatchNorm2d: ("BatchNormalization", ("weight", "bias", "running_mean", "running_var")),
        nn.ReLU: ("Relu", ()),
        nn.MaxPool2d: ("MaxPool", ()),
        nn.Flatten: ("Flatten", ()),
        nn.Linear: ("Gemm", ("weight", "bias")),
    }
    attributes: dict[str, dict[str, object]] = {
        "Conv": {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]},
        "BatchNormalization": {"epsilon": 1e-5},
        "MaxPool": {"kernel_shape": [2, 2], "strides": [2, 2]},
        "Gemm": {"transB": 1},
    }
    counts: dict[str, int] = {}
    for part in net:
        if isinstance(part, nn.Dropout):
            continue
        op, fields = kinds[type(part)]
        counts[op] = counts.get(op, 0) + 1
        name = f"{op.lower()}{counts[op]}"
        weights = {f"{name}.{field}": getattr(part, field).detach().numpy() for field in fields}
        yield helper.make_node(op, [*weights], [f"{name}.out"], name=name, **attributes.get(op, {})), weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--to", type=Path, default=PLACE, help="folder for digits.onnx and digits.npz")
    args = parser.parse_args()

    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(mode=True)
    digits = load_digits()
    order = np.random.default_rng(SEED).permutation(len(digits.images))
    images = digits.images[order, None].astype(np.uint8)
    labels = digits.target[order].astype(np.uint8)

    net = network()
    train(net, torch.tensor(images[:TRAIN]) / 16, torch.tensor(labels[:TRAIN]).long(), epochs=args.epochs)
    with torch.no_grad():
        right = net(torch.tensor(images[TRAIN:]) / 16).argmax(1).numpy() == labels[TRAIN:]
    print(f"held-out accuracy: {right.mean():.2%} of {len(right)} images ({(~right).sum()} wrong)")

    onnx.save(to_onnx(net), args.to / "digits.onnx")
    np.savez_compressed(args.to / "digits.npz", x=images[TRAIN:], y=labels[TRAIN:])
    for name in ("digits.onnx", "digits.npz"):
        print(f"{name}: {(args.to / name).stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
