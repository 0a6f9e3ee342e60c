"""What quantizing a ``.safetensors`` file takes that need not fit into memory.

    python benchmarks/large_tensors.py --gib 3
    python benchmarks/large_tensors.py --gib 12 --dtype BF16

Makes a file of normal noise in a temporary folder, quantizes it by the command, and prints the largest resident size of
the command's processes together, its CPU time, and whether each matrix is what quantizing it in memory gives.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from larger_than_memory import run

from qm.numerics import grid_for, group_grid, quantize, unpack_words
from qm.plugin import Scheme
from qm_tensors.header import laid_out, read
from qm_tensors.matrix import Matrix

PART = 64
"""Rows that are written at a time."""


def write(path: Path, *, nbytes: int, width: int, dtype: str) -> None:
    """Square matrices of that width, written in parts: a command's peak counts what its parent held when it began."""
    size = {"F32": 4, "BF16": 2}[dtype]
    count = -(-nbytes // (size * width**2))
    head, _ = laid_out([(f"layers.{i}.weight", dtype, (width, width)) for i in range(count)], {})
    rng = np.random.default_rng(0)
    with path.open("wb") as f:
        f.write(head)
        for _ in range(count * width // PART):
            w = rng.standard_normal((PART, width), np.float32) * np.float32(width**-0.5)
            f.write((w.view(np.uint32) >> 16).astype(np.uint16) if dtype == "BF16" else w)


def differing(source: Path, made: Path, scheme: Scheme) -> list[str]:
    """The matrices whose integers, scales or zero points are not those of quantizing them in memory."""
    before, after = read(source), read(made)
    wrong = []
    for name, entry in before.entries.items():
        w = Matrix(source, name, entry).read((slice(None), slice(None)))

        def part(stem: str, name: str = name) -> np.ndarray:
            return Matrix(made, name + stem, after.entries[name + stem]).stored

        if scheme.group:
            grid = group_grid(w, bits=4, group=scheme.group, axis=1)
            same = np.array_equal(unpack_words(part("_packed"), w.shape[1]), quantize(w, grid))
            same &= np.array_equal(unpack_words(part("_zero_point"), w.shape[0], axis=0), grid.zero_point)
        else:
            grid = grid_for(w, bits=8, axis=0)
            same = np.array_equal(part(""), quantize(w, grid))
        if not same or not np.array_equal(part("_scale").ravel(), grid.scale.ravel()):
            wrong.append(name)
    return wrong


def main() -> None:
    """Make the file, quantize it, and print what that took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=float, default=3.0)
    parser.add_argument("--scheme", default="w4g32")
    parser.add_argument("--dtype", choices=("F32", "BF16"), default="F32")
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as scratch:
        big, small = Path(scratch) / "big.safetensors", Path(scratch) / "small.safetensors"
        write(big, nbytes=int(args.gib * 2**30), width=args.width, dtype=args.dtype)
        spent = run(["quantize", str(big), "-p", "tensors.weights", "--scheme", args.scheme, "--to", str(small)])
        sizes = [p.stat().st_size / 2**30 for p in (big, small)]
        print(f"{sizes[0]:.2f} GiB to {sizes[1]:.2f} GiB: {spent.peak_mb:.0f} MB at the most, {spent.cpu_s:.1f} CPU s")
        wrong = differing(big, small, Scheme.parse(args.scheme))
        print(f"bit for bit as in memory: {not wrong}{''.join(map(' {}'.format, wrong))}")


if __name__ == "__main__":
    main()
