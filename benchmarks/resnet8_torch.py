"""ResNet-8 in PyTorch, of the weights that benchmarks/resnet8_onnx.py wrote: batch norms folded, no softmax."""

from __future__ import annotations

from pathlib import Path

import onnx
import torch
from onnx import numpy_helper
from torch import nn
from torch.nn import functional

# As in resnet8_onnx.py: name, inputs, outputs, kernel, stride.
CONVOLUTIONS = (
    ("conv2d", 3, 16, 3, 1),
    ("conv2d_1", 16, 16, 3, 1),
    ("conv2d_2", 16, 16, 3, 1),
    ("conv2d_3", 16, 32, 3, 2),
    ("conv2d_4", 32, 32, 3, 1),
    ("conv2d_5", 16, 32, 1, 2),
    ("conv2d_6", 32, 64, 3, 2),
    ("conv2d_7", 64, 64, 3, 1),
    ("conv2d_8", 32, 64, 1, 2),
)


class ResNet8(nn.Module):
    """Images ``(n, 3, 32, 32)`` from 0 to 255 to logits ``(n, 10)``."""

    def __init__(self) -> None:
        super().__init__()
        for name, inputs, outputs, kernel, stride in CONVOLUTIONS:
            padding = kernel // 2 if stride == 1 else 0
            setattr(self, name, nn.Conv2d(inputs, outputs, kernel, stride, padding))
        self.dense = nn.Linear(64, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.conv2d(image))
        x = functional.relu(x + self.conv2d_2(functional.relu(self.conv2d_1(x))))
        # TensorFlow's SAME padding: with a stride of 2, behind alone.
        y = self.conv2d_4(functional.relu(self.conv2d_3(functional.pad(x, (0, 1, 0, 1)))))
        x = functional.relu(y + self.conv2d_5(x))
        y = self.conv2d_7(functional.relu(self.conv2d_6(functional.pad(x, (0, 1, 0, 1)))))
        x = functional.relu(y + self.conv2d_8(x))
        logits: torch.Tensor = self.dense(x.mean((2, 3)))
        return logits


def resnet8(weights: Path) -> ResNet8:
    """The network, of the weights in the ONNX file."""
    tensors = {t.name: torch.tensor(numpy_helper.to_array(t)) for t in onnx.load(weights).graph.initializer}
    tensors["dense.weight"] = tensors["dense.weight"].T.contiguous()
    model = ResNet8()
    model.load_state_dict(tensors)
    return model.eval()
