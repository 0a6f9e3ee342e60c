"""From parsed flags to a run."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

from qm.catalog import Catalog
from qm.progress import Bars
from qm.recipe import Recipe
from qm.request import Request
from qm.runner import Run


def run_of(args: argparse.Namespace, recipe: Recipe, **more: Any) -> Run:
    """The run that the flags ask for, its progress shown on a terminal."""
    request = Request(
        model=Path(args.model),
        recipe=recipe,
        data=args.data,
        to=Path(args.to) if args.to else None,
        force=args.force,
        command=shlex.join(["qm", *sys.argv[1:]]),
        load=args.load,
        **more,
    )
    catalog = Catalog()
    catalog.manager.activate(args.with_)
    return Run(request, catalog, Bars())
