"""What weight-only quantization of a model that need not fit into memory takes.

    python benchmarks/larger_than_memory.py --gib 3
    python benchmarks/larger_than_memory.py --gib 12 --no-compare

Makes a synthetic transformer in a temporary folder, quantizes it by the command, and prints the largest resident size
of the command's processes together, its CPU time, whether ONNX Runtime runs the result, and whether every tensor is bit
for bit what the method makes of the same layer with its weight in memory.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import large_model
import numpy as np
import onnx
import onnxruntime as ort
import psutil
from onnx import NodeProto, TensorProto, external_data_helper, helper

from qm.plugin import Plan, QuantizeJob, Scheme
from qm_onnx.model import OnnxModel
from qm_onnx.weights import quantize

EVERY_S = 0.02


@dataclass(frozen=True)
class Spent:
    """What a command took."""

    peak_mb: float
    cpu_s: float


def run(words: list[str]) -> Spent:
    """Run ``qm`` and watch it and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    child = psutil.Popen([sys.executable, "-m", "qm", *words])
    peak = 0
    while child.poll() is None:
        peak = max(peak, _resident(child))
        time.sleep(EVERY_S)
    if child.returncode:
        raise SystemExit(f"qm {' '.join(words)} ended with {child.returncode}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Spent(peak_mb=max(peak, after.ru_maxrss * 1024) / 1e6, cpu_s=spent)


def _resident(process: psutil.Popen) -> int:
    total = 0
    try:
        for member in (process, *process.children(recursive=True)):
            total += member.memory_info().rss
    except psutil.Error:  # It ended meanwhile.
        pass
    return total


def differing(model: Path, small: Path, scheme: str) -> tuple[list[str], int]:
    """The stored tensors that are not what quantizing each layer in memory gives, and how many there are."""
    source, made = (onnx.load(p, load_external_data=False) for p in (model, small))
    stored = {t.name: t for t in source.graph.initializer}
    result = {t.name: t for t in made.graph.initializer}
    wrong, seen = [], 0
    for node in source.graph.node:
        name = next((n for n in node.input if n in stored and len(stored[n].dims) > 1), None)
        if name is None:
            continue
        for tensor in alone(node, _read(stored[name], model.parent), scheme):
            seen += 1
            if bytes(tensor.raw_data) != bytes(_read(result[tensor.name], small.parent).raw_data):
                wrong.append(tensor.name)
    return wrong, seen


def alone(node: NodeProto, weight: TensorProto, scheme: str) -> list[TensorProto]:
    """What one layer's weight in memory becomes."""
    others = [onnx.ValueInfoProto(name=n) for n in node.input if n != weight.name]
    made = helper.make_graph([node], "alone", others, [onnx.ValueInfoProto(name=node.output[0])], [weight])
    proto = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    plan = Plan({node.name: Scheme.parse(scheme)})
    return list(quantize(QuantizeJob(model=OnnxModel(proto), plan=plan)).native.graph.initializer)


def _read(tensor: TensorProto, folder: Path) -> TensorProto:
    copy = TensorProto()
    copy.CopyFrom(tensor)
    if external_data_helper.uses_external_data(copy):
        external_data_helper.load_external_data_for_tensor(copy, str(folder))
        copy.data_location = TensorProto.DEFAULT
        del copy.external_data[:]
    return copy


def runs(path: Path) -> str:
    """What ONNX Runtime makes of the file."""
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = 1
    session = ort.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    (scores,) = session.run(None, {"ids": np.arange(4, dtype=np.int64)[None]})
    return f"runs, {scores.shape} scores, {'finite' if np.isfinite(scores).all() else 'NOT FINITE'}"


def main() -> None:
    """Make the model, quantize it, and print what that took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=float, default=3.0)
    parser.add_argument("--scheme", default="w4g32")
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made")
    parser.add_argument("--no-compare", action="store_true", help="leave out the comparison, bit for bit")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as scratch:
        folder = Path(scratch)
        model, small = folder / "big.onnx", folder / "small.onnx"
        large_model.write(model, nbytes=int(args.gib * 2**30), width=args.width)
        spent = run(["quantize", str(model), "-p", "onnx.weights", "--scheme", args.scheme, "--to", str(small)])
        sizes = [sum(f.stat().st_size for f in folder.glob(f"{p.name}*")) / 2**30 for p in (model, small)]
        print(f"{sizes[0]:.2f} GiB to {sizes[1]:.2f} GiB: {spent.peak_mb:.0f} MB at the most, {spent.cpu_s:.1f} CPU s")
        print(f"ONNX Runtime: {runs(small)}")
        if not args.no_compare:
            wrong, seen = differing(model, small, args.scheme)
            print(f"bit for bit as in memory: {not wrong}, {seen} tensors{''.join(map(' {}'.format, wrong))}")


if __name__ == "__main__":
    main()
