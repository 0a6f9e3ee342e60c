"""``qm inspect``: the layers of a model, and the scheme that each is really in."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qm.cli.request import add_load

if TYPE_CHECKING:
    from qm.types import Layer, TensorSpec

SUMMARY = "Show the layers of a model file, and the scheme that each is really in."


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What a file holds. ``schemes`` is None where the framework does not tell them, ``layers`` likewise."""

    path: Path
    nbytes: int
    format: str
    loader: str
    inputs: Sequence[TensorSpec]
    outputs: Sequence[TensorSpec]
    layers: Sequence[Layer] | None
    schemes: dict[str, str] | None

    def scheme(self, layer: Layer) -> str:
        """The layer's scheme in text, or a question mark."""
        return "?" if self.schemes is None else self.schemes.get(layer.name, "float")

    def totals(self) -> dict[str, int]:
        """Weights (tied ones once) and multiply-accumulates of all layers."""
        weights = {layer.tied or ("", layer.name): layer.weights for layer in self.layers or ()}
        return {"weights": sum(weights.values()), "macs": sum(layer.macs for layer in self.layers or ())}

    def counts(self) -> dict[str, int]:
        """How many layers are in each scheme, the commonest first."""
        return dict(Counter(self.scheme(layer) for layer in self.layers or ()).most_common())


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.add_argument("file", metavar="MODEL", type=Path, help="a file, a folder, or package.module:function")
    add_load(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Load the file by its own loader and list what is in it."""
    from qm.cli.screen import show_json

    seen = inspect(args.file, args.load)
    if args.json:
        show_json(_json(seen))
    else:
        _print(seen)
    return 0


def inspect(path: Path, told: Mapping[str, str] | None = None) -> Inspection:
    """Look into a model file, or what a function makes; ``told`` are the options of its loader.

    Raises:
        UsageError: it does not exist, or no installed plugin loads it.
    """
    from qm.catalog import Catalog
    from qm.errors import Unsupported
    from qm.manager import blame
    from qm.report import File
    from qm.source import check_there
    from qm.step import load_model

    check_there(path)
    catalog = Catalog()
    catalog.manager.activate(())
    found = catalog.loader(path)
    found.check_ready()
    model = load_model(catalog.manager, found, path, told)
    layers, schemes = None, None
    with blame(found.plugin, f"listing the layers of {path.name!r}"):
        try:
            layers = model.layers()
            schemes = {name: str(scheme) for name, scheme in model.schemes().items()}
        except Unsupported:
            pass
        return Inspection(
            path=path,
            nbytes=File.of_source(path, model).nbytes,
            format=model.format,
            loader=found.plugin,
            inputs=model.inputs(),
            outputs=model.outputs(),
            layers=layers,
            schemes=schemes,
        )


def _json(seen: Inspection) -> dict[str, Any]:
    layers = None
    if seen.layers is not None:
        layers = [{**asdict(layer), "scheme": (seen.schemes or {}).get(layer.name)} for layer in seen.layers]
    return {
        "path": str(seen.path),
        "nbytes": seen.nbytes,
        "format": seen.format,
        "loader": seen.loader,
        "inputs": [asdict(spec) for spec in seen.inputs],
        "outputs": [asdict(spec) for spec in seen.outputs],
        "layers": layers,
        "totals": seen.totals(),
        "schemes": seen.counts(),
    }


def _print(seen: Inspection) -> None:
    from rich.text import Text

    from qm.cli.screen import show, table

    heading = Text(str(seen.path), style="bold")
    show(heading, Text(f"{seen.nbytes:,} bytes, {seen.format} (read by {seen.loader})"))
    for word, specs in (("input ", seen.inputs), ("output", seen.outputs)):
        for spec in specs:
            show(Text(f"{word}  {spec}"))
    if seen.layers is None:
        show("", f"{seen.loader} does not list layers.")
        return
    tied = any(layer.tied for layer in seen.layers)
    columns = ("layer", "kind", "weights", "MACs", "scheme", *(["tied to"] if tied else []))
    rows = table(*columns, right=("weights", "MACs"))
    for layer in seen.layers:
        macs = f"{layer.macs:,}" if layer.macs else "?"
        cells = (layer.name, layer.kind, f"{layer.weights:,}", macs, seen.scheme(layer))
        rows.add_row(*(Text(c) for c in (*cells, *([layer.tied or ""] if tied else []))))
    totals = seen.totals()
    schemes = ", ".join(f"{count} in {scheme}" for scheme, count in seen.counts().items())
    rows.add_section()
    macs = f"{totals['macs']:,}" if totals["macs"] else "?"
    rows.add_row(f"{len(seen.layers)} layers", "", f"{totals['weights']:,}", macs, "")
    show("", rows, "", Text(schemes) if schemes else "It has no layers with weights.")
