"""Where the files of targets lie: with the project, with plugins, in the user's own folders."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

GROUP = "qm.targets.v1"
"""The entry-point group in which a distribution names a package whose ``.toml`` files are targets."""
VARIABLE = "QM_TARGETS"


@dataclass(frozen=True, kw_only=True)
class Copy:
    """A file that describes the target ``name``; ``origin`` says who brought it."""

    name: str
    path: Path
    origin: str
    own: bool = False
    """Whether it is the user's, whose files come before all others."""


def copies() -> dict[str, list[Copy]]:
    """Every file by target name, the user's own first; two of one name that are not the user's are a clash."""
    found: dict[str, list[Copy]] = {}
    for copy in (*_own(), *_shipped(), *_published()):
        there = found.setdefault(copy.name, [])
        if all(copy.path != other.path for other in there):
            there.append(copy)
    return dict(sorted(found.items()))


def _own() -> Iterator[Copy]:
    for folder in filter(None, os.environ.get(VARIABLE, "").split(os.pathsep)):
        yield from (Copy(name=f.stem, path=f, origin=folder, own=True) for f in _files([Path(folder)]))


def _shipped() -> Iterator[Copy]:
    origin = "quantized-model"
    yield from (Copy(name=f.stem, path=f, origin=origin) for f in _files([Path(__file__).parent / "targets"]))


def _published() -> Iterator[Copy]:
    blocked = {name.strip() for name in os.environ.get("QM_BLOCK", "").split(",")}
    for point in importlib.metadata.entry_points(group=GROUP):
        if point.name not in blocked:
            origin = f"{point.dist.name} {point.dist.version}" if point.dist is not None else point.name
            yield from (Copy(name=f.stem, path=f, origin=origin) for f in _files(_folders(point.value)))


def _folders(package: str) -> list[Path]:
    """The folders of a package, which is not imported: what a target is must cost nobody an import."""
    top, *rest = package.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return []
    return [Path(place, *rest) for place in (spec.submodule_search_locations or ())] if spec is not None else []


def _files(folders: Iterable[Path]) -> list[Path]:
    return sorted(f for folder in folders if folder.is_dir() for f in folder.iterdir() if f.suffix == ".toml")
