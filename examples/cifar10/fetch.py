"""Take ResNet-8 and CIFAR-10 from a folder into ``models/cifar10.h5`` and ``models/cifar10.npz``.

The folder holds ``models/resnet8_cifar10.h5``, the float model of MLPerf Tiny, and ``data/cifar10.npz`` with the arrays
``x_train``, ``y_train``, ``x_test`` and ``y_test``.
Run from the root of the repository: ``python examples/cifar10/fetch.py``.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILES = {"models/resnet8_cifar10.h5": "cifar10.h5", "data/cifar10.npz": "cifar10.npz"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--from",
        dest="source",
        type=Path,
        default=Path(os.environ.get("QM_DATA") or ROOT.parent / "shared"),
        help="the folder with models/ and data/ (QM_DATA, else ../shared)",
    )
    parser.add_argument("--to", type=Path, default=Path("models"), help="where to put the two files (models)")
    args = parser.parse_args()
    for name in FILES:
        if not (args.source / name).is_file():
            sys.exit(
                f"error: there is no {str(args.source / name)!r}\nhint:  Give the folder that holds it: --from PATH"
            )
    args.to.mkdir(parents=True, exist_ok=True)
    for name, kept in FILES.items():
        # The contents alone: the source may be read-only, and the copy must not be.
        shutil.copyfile(args.source / name, args.to / kept)
        print(f"{args.to / kept}: {(args.to / kept).stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
