"""A package of AOTInductor: what it says of itself, and running it.

Its machine code runs with all rights of this process: only what is told by ``read`` needs no trust.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import torch

from qm.plugin import Array, Batch, UsageError
from qm_torch import archive, description
from qm_torch.feed import Feed
from qm_torch.manifest import KEY, Manifest

_HINT = "Make it with qm quantize --to net.pt2, or give the exported program that it was compiled from."


def read(path: Path) -> Manifest:
    """What the package says of itself; nothing of it is run.

    Raises:
        UsageError: it is missing, damaged, no package, or one that was not made by this plugin.
    """
    if not path.exists():
        raise UsageError(f"model {str(path)!r} does not exist", hint="Check the path.")
    if not archive.is_package(path):
        raise UsageError(f"{str(path)!r} is no package of AOTInductor, or is damaged", hint=_HINT)
    try:
        with zipfile.ZipFile(path) as package:
            if broken := package.testzip():
                raise UsageError(f"{str(path)!r} is damaged at {broken!r}", hint="Export it again.")
            names = [n for n in package.namelist() if n.endswith("metadata.json")]
            told = [json.loads(package.read(name)) for name in names]
        text = next((t[KEY] for t in told if KEY in t), None)
        if text is None:
            raise UsageError(f"{str(path)!r} does not say what its inputs and layers are called", hint=_HINT)
        return Manifest.parse(text)
    except (OSError, zipfile.BadZipFile, ValueError, TypeError) as e:
        raise UsageError(f"{str(path)!r} is damaged: {e}", hint="Export it again.") from e


class Package:
    """A package, its machine code loaded into this process."""

    def __init__(self, path: Path, *, threads: int | None = None) -> None:
        """Open the package.

        Raises:
            UsageError: the package is damaged, or was compiled for another CPU or PyTorch.
        """
        self.manifest = read(path)
        self._path = path
        self._feed = Feed(path, self.manifest)
        self._check_cpu()
        if threads is not None:
            torch.set_num_threads(threads)
        try:
            self._loader = torch._C._aoti.AOTIModelPackageLoader(str(path.resolve()), "model", False, 1, -1)  # noqa: FBT003
        except RuntimeError as e:
            reason = str(e).strip().partition("\n")[0][:200]
            raise UsageError(
                f"{str(path)!r}, compiled with PyTorch {self.manifest.torch}, cannot be opened by "
                f"{torch.__version__}: {reason}",
                hint="Export it again, on this machine.",
            ) from e

    def _check_cpu(self) -> None:
        # Machine code for another CPU ends the process without a word.
        if lacking := [name for name in self.manifest.isa if name not in description.isa()]:
            raise UsageError(
                f"{str(self._path)!r} was compiled for a CPU with {', '.join(lacking)}, which this one has not",
                hint="Export it again on this machine, or as a .pte or .onnx file, which run on any.",
            )

    def run(self, batch: Batch) -> dict[str, Array]:
        """The outputs by name."""
        inputs = self._feed.tensors(batch)
        with torch.no_grad():
            return self._feed.arrays(self._loader.run(inputs))
