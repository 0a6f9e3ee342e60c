"""MLPerf Tiny's ResNet-8 by onnx.ptq: the SQNR of the logits, top-1 on CIFAR-10 and the speed of one thread.

    python benchmarks/resnet8_onnx.py [-o NAME=VALUE ...] [--target host] [--scheme w8a8]
    python benchmarks/resnet8_onnx.py --write resnet8.onnx

The ONNX model is made here from the Keras file in the folder of shared models, batch norms folded, its output the
logits. Training images calibrate, the first test images judge. On the kernels of a CPU without VNNI: see
benchmarks/avx2_runtime.py.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnx
from interleave import session, speedups
from onnx import TensorProto, helper, numpy_helper
from sound import shared

import qm.target
from qm.numerics import sqnr_db
from qm.plugin import Array, Batch, LoadJob, Notes, Plan, QuantizeJob, Scheme

# Convolution, its batch norm ("" for none), what it reads, its stride, and what its result is added to ("" for none).
LAYERS = (
    ("conv2d", "batch_normalization", "image", 1, ""),
    ("conv2d_1", "batch_normalization_1", "conv2d", 1, ""),
    ("conv2d_2", "batch_normalization_2", "conv2d_1", 1, "conv2d"),
    ("conv2d_3", "batch_normalization_3", "conv2d_2", 2, ""),
    ("conv2d_5", "", "conv2d_2", 2, ""),
    ("conv2d_4", "batch_normalization_4", "conv2d_3", 1, "conv2d_5"),
    ("conv2d_6", "batch_normalization_5", "conv2d_4", 2, ""),
    ("conv2d_8", "", "conv2d_4", 2, ""),
    ("conv2d_7", "batch_normalization_6", "conv2d_6", 1, "conv2d_8"),
)
LINEAR = ("conv2d_5", "conv2d_8")
EPSILON = 1e-3


class Images:
    """CIFAR-10 images as the model takes them: 0 to 255, float32 [1, 3, 32, 32]."""

    labels = None

    def __init__(self, pixels: Array) -> None:
        self.pixels = pixels

    def __len__(self) -> int:
        return len(self.pixels)

    def __iter__(self) -> Iterator[Batch]:
        return ({"image": p.transpose(2, 0, 1)[None].astype(np.float32)} for p in self.pixels)


def resnet8(source: Path) -> onnx.ModelProto:
    """ResNet-8 as ONNX, of the weights in the Keras file; NCHW, without the softmax."""
    with h5py.File(source) as file:
        root = file.get("model_weights", file)
        stored = {name: {k: np.array(v) for k, v in root[name][name].items()} for name in root if len(root[name])}
    nodes, tensors = [], []
    for name, norm, data, stride, added in LAYERS:
        kernel, bias = _folded(stored[name], stored.get(norm))
        pads = _same(kernel.shape[2], stride, {"conv2d_3": 32, "conv2d_5": 32}.get(name, 16))
        tensors += [numpy_helper.from_array(kernel, f"{name}.weight"), numpy_helper.from_array(bias, f"{name}.bias")]
        result = name if name in LINEAR else f"{name}.sum"
        inputs = [data, f"{name}.weight", f"{name}.bias"]
        nodes.append(helper.make_node("Conv", inputs, [result], name=name, strides=[stride] * 2, pads=pads))
        if added:
            nodes.append(helper.make_node("Add", [result, added], [f"{name}.added"], name=f"{name}.add"))
            result = f"{name}.added"
        if name not in LINEAR:
            nodes.append(helper.make_node("Relu", [result], [name], name=f"{name}.relu"))
    dense = stored["dense"]
    tensors += [
        numpy_helper.from_array(np.ascontiguousarray(dense["kernel:0"]), "dense.weight"),
        numpy_helper.from_array(dense["bias:0"], "dense.bias"),
    ]
    nodes += [
        helper.make_node("GlobalAveragePool", [LAYERS[-1][0]], ["pooled"], name="pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], name="flatten"),
        helper.make_node("Gemm", ["flat", "dense.weight", "dense.bias"], ["logits"], name="dense"),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 32, 32])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 10])
    graph = helper.make_graph(nodes, "resnet8", [image], [logits], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _folded(layer: dict[str, Array], norm: dict[str, Array] | None) -> tuple[Array, Array]:
    """Kernel ``(out, in, h, w)`` and bias with the batch norm in them."""
    kernel, bias = layer["kernel:0"].transpose(3, 2, 0, 1), layer["bias:0"]
    if norm is not None:
        factor = norm["gamma:0"] / np.sqrt(norm["moving_variance:0"] + EPSILON)
        kernel, bias = kernel * factor[:, None, None, None], (bias - norm["moving_mean:0"]) * factor + norm["beta:0"]
    return np.ascontiguousarray(kernel, np.float32), np.asarray(bias, np.float32)


def _same(kernel: int, stride: int, length: int) -> list[int]:
    """Padding as TensorFlow's SAME has it, for an even length: more behind than before."""
    missing = max((-(-length // stride) - 1) * stride + kernel - length, 0)
    return [missing // 2] * 2 + [missing - missing // 2] * 2


def quantized(path: Path, data: Images, args: Any) -> tuple[onnx.ModelProto, Notes]:
    from qm_onnx.load import load
    from qm_onnx.option import PtqOptions
    from qm_onnx.ptq import quantize

    model = load(LoadJob(path=path))
    job = QuantizeJob(
        model=model,
        plan=Plan({layer.name: Scheme.parse(args.scheme) for layer in model.layers()}),
        data=data,
        target=qm.target.find(args.target),
        options=PtqOptions.model_validate(dict(o.split("=", 1) for o in args.option)),
        notes=Notes(),
    )
    return quantize(job).native, job.notes


def main() -> int:
    parser = argparse.ArgumentParser(description="ResNet-8 by onnx.ptq, compared with float.")
    parser.add_argument("--write", type=Path, metavar="FILE", help="only write the float model")
    parser.add_argument("--target", default="host")
    parser.add_argument("--scheme", default="w8a8")
    parser.add_argument("--samples", type=int, default=64, help="how many training images calibrate (64)")
    parser.add_argument("--judges", type=int, default=5000, help="how many test images judge (5000)")
    parser.add_argument("-o", "--option", action="append", default=[], metavar="NAME=VALUE")
    args = parser.parse_args()
    data = shared()
    if data is None:
        print("skipped: there is no shared data; name its folder in QM_DATA")
        return 0
    proto = resnet8(data / "models" / "resnet8_cifar10.h5")
    if args.write:
        onnx.save(proto, args.write)
        return 0
    with np.load(data / "data" / "cifar10.npz") as arrays:
        calibration, test = Images(arrays["x_train"][: args.samples]), Images(arrays["x_test"][: args.judges])
        labels = arrays["y_test"][: args.judges]
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("float.onnx", "int8.onnx")]
        onnx.save(proto, files[0])
        begun = time.perf_counter()
        made, notes = quantized(files[0], calibration, args)
        seconds = time.perf_counter() - begun
        onnx.save(made, files[1])
        sessions = [session(f) for f in files]
        ratio, low, high = speedups(sessions, [b for b, _ in zip(test, range(8), strict=False)], rounds=200)[1]
        out = [np.concatenate([s.run(None, dict(b))[0] for b in test]) for s in sessions]
        sizes = [f.stat().st_size for f in files]
    top1 = [100 * np.mean(o.argmax(axis=1) == labels) for o in out]
    print("\n".join(notes))
    print(f"{sqnr_db(*out):.2f} dB, top-1 {top1[1]:.2f} % (float {top1[0]:.2f} %) of {len(test)}, {seconds:.1f} s,")
    print(f"{sizes[0]:,} to {sizes[1]:,} bytes, speed {ratio:.2f} times float ({low:.2f} to {high:.2f})")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
