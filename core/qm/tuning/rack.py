"""The folder that holds the front: each point a file and its recipe, whole or not there at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from qm.errors import UsageError
from qm.file import locked, written
from qm.recipe import Recipe
from qm.source import stem

JOURNAL = "trials.jsonl"
LOCK = ".lock"


class Rack:
    """The folder. It belongs to one run at a time, and to no other files than its own.

    Raises:
        UsageError: it holds other things, cannot be written, or another run is at work in it.
    """

    def __init__(self, folder: Path, *, resume: bool) -> None:
        self.folder = folder
        self.journal = folder / JOURNAL
        if resume and not self.journal.exists():
            raise UsageError(
                f"there is nothing to resume in {str(folder)!r}", hint="Leave --resume out to begin, or name another."
            )
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"{str(folder)!r} is a file", hint="Name a folder with --to.")
        if folder.exists() and not self.journal.exists() and any(p.name != LOCK for p in folder.iterdir()):
            raise UsageError(f"the folder {str(folder)!r} holds other things", hint="Name a new one with --to.")
        if not folder.parent.is_dir():
            raise UsageError(f"the folder {str(folder.parent)!r} does not exist", hint=f"Make it: mkdir -p {folder}")
        try:
            folder.mkdir(exist_ok=True)
        except OSError as e:
            raise UsageError(
                f"{str(folder)!r} cannot be made: {os.strerror(e.errno or 0)}", hint="Name another."
            ) from e

    @staticmethod
    def usual(model: Path) -> Path:
        """Where the front of a model goes if nobody says."""
        parent = model.parent if model.exists() else Path()
        return parent / f"{stem(model)}.tune"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other runs out, and sweep up what a run that was killed left behind."""
        with (self.folder / LOCK).open("w") as lock:
            locked(lock, self.folder)
            self._sweep()
            try:
                yield
            finally:
                self._sweep()
                if not self.journal.exists():
                    self._leave()

    def scratch(self) -> Path:
        """A new folder for a trial to write to."""
        return Path(tempfile.mkdtemp(prefix=".trial.", dir=self.folder))

    def path(self, name: str) -> Path:
        """Where the file of that name lies."""
        return self.folder / name

    def recipe_path(self, name: str) -> Path:
        """Where its recipe lies."""
        return self.folder / f"{name}.toml"

    def has(self, name: str) -> bool:
        """Whether the file of that name and its recipe are there."""
        return self.path(name).exists() and self.recipe_path(name).exists()

    def put(self, name: str, made: Path, recipe: Recipe) -> None:
        """Move a trial's file here from the folder that it was made in, its recipe first."""
        recipe.write(self.recipe_path(name), force=True)
        with written(self.path(name), force=True) as temporary:
            for file in made.iterdir():
                shutil.move(file, temporary.parent / file.name)

    def keep(self, names: Collection[str], known: Collection[str]) -> None:
        """Remove those of the known files that are not among the names."""
        for name in set(known) - set(names):
            for path in (self.path(name), self.folder / f"{name}.data", self.recipe_path(name)):
                _remove(path)

    def clear(self, stem: str) -> None:
        """Remove the files of that name, whatever their suffixes; a file goes before its recipe."""
        for path in sorted(self.folder.glob(f"{stem}.*"), key=lambda p: p.suffix == ".toml"):
            _remove(path)

    def _leave(self) -> None:
        """Take the folder away again, where nothing was begun in it."""
        with suppress(OSError):
            (self.folder / LOCK).unlink()
            self.folder.rmdir()

    def _sweep(self) -> None:
        for path in self.folder.glob(".*"):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
