"""The flags that benchmark and compare share, and what their values may be."""

from __future__ import annotations

import argparse
import re
from typing import Any


def add_terms(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say how to measure."""
    parser.add_argument("--data", metavar="D", help="samples: .npz, .npy, a folder of images, .toml, module:function")
    parser.add_argument("--max-drop", type=loss, metavar="SHARE", help="loss of accuracy that is allowed (1%%)")
    parser.add_argument(
        "--metric", metavar="M", help="module:function(outputs, label) that returns a number a sample, higher is better"
    )
    parser.add_argument("--threads", metavar="N", type=int, default=1, help="threads of the runtime (1)")
    parser.add_argument("--cache", choices=("hot", "cold"), default="hot", help="the CPU's caches at each run (hot)")
    parser.add_argument("--precision", type=share, default=0.02, help="stop when the interval is this narrow (2%%)")
    parser.add_argument("--time", type=seconds, default=60.0, help="stop timing after this long in any case (60s)")
    parser.add_argument(
        "--timeout", type=seconds, default=120.0, help="give a model up that does not answer for this long (120s)"
    )
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="seed of all that is random (0)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def terms_of(args: argparse.Namespace) -> dict[str, Any]:
    """The flags as arguments of ``qm.benchmark`` and ``qm.compare``."""
    return {
        "data": args.data,
        "max_drop": args.max_drop,
        "metric": args.metric,
        "threads": args.threads,
        "cache": args.cache,
        "precision": args.precision,
        "time_s": args.time,
        "timeout_s": args.timeout,
        "seed": args.seed,
    }


def seconds(text: str) -> float:
    """``90``, ``90s``, ``1.5m`` or ``1h`` in seconds."""
    found = re.fullmatch(r"(\d+(?:\.\d*)?)\s*([smh]?)", text)
    if not found or float(found[1]) <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 60s or 2m")
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]]


def share(text: str) -> float:
    """``2%`` or ``0.02`` as a share."""
    value = loss(text) if re.match(r"[\d.]", text) else 0.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share such as 2% or 0.02")
    return value


def loss(text: str) -> float:
    """``1%`` or ``0.01`` as a number of 0 or more."""
    found = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*(%?)", text.strip())
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share such as 1% or 0.01")
    return float(found[1]) / (100 if found[2] else 1)
