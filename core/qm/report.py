"""What a run leaves behind beside its artifact: the route, the plan, what was seen, and all it takes to do it again."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Self

from pydantic import Field, ValidationError

from qm.errors import UsageError
from qm.file import sha256, written
from qm.measurement import Ratio
from qm.recipe import Recipe
from qm.strict import Strict, complaint
from qm.target import Target
from qm.types import Artifact
from qm.verdict import Accuracy, Agreement


class Level(StrEnum):
    """How much a finding matters. A broken promise fails the audit."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    BROKEN = "broken"


class Finding(Strict):
    """One thing the audit saw: of which layer (empty: of the whole), and the next thing to do about it."""

    check: str
    level: Level
    seen: str
    layer: str = ""
    next: str = ""


class File(Strict):
    """A model on disk."""

    path: str
    format: str
    nbytes: int
    sha256: str

    @classmethod
    def of(cls, artifact: Artifact) -> Self:
        """The artifact's figures, hash included."""
        path = artifact.path
        return cls(path=str(path), format=artifact.format, nbytes=artifact.nbytes, sha256=sha256(path))


class Samples(Strict):
    """Which samples set ranges, chose among trials and judged the result, by their index in the whole set."""

    source: str
    fingerprint: str
    count: int
    calibrated: tuple[int, ...] = ()
    tried: tuple[int, ...] = ()
    judged: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()


class Size(Strict):
    """Bytes on disk."""

    before: int
    after: int

    @property
    def ratio(self) -> float:
        """After over before."""
        return self.after / self.before


class Quality(Strict):
    """The artifact against the float model, as its real runtime runs it, on ``n`` samples.

    ``sqnr_db`` is of the worst output, None where the outputs are identical or cannot be compared; ``synthetic`` says
    that the inputs were made up, so that nothing follows for accuracy.
    """

    n: int
    sqnr_db: float | None
    cosine: float | None = None
    agreement: Agreement | None = None
    accuracy: Accuracy | None = None
    synthetic: bool = False


class Report(Strict):
    """The whole of a run, as ``NAME.report.json`` holds it."""

    version: int = Field(default=1, ge=1, le=1)
    created: str
    command: str
    model: File
    artifact: File
    accepted: bool
    route: tuple[str, ...]
    recipe: Recipe
    plan: dict[str, str]
    schemes: dict[str, str]
    target: Target
    host: Target
    runtime: str
    decisions: tuple[str, ...]
    findings: tuple[Finding, ...]
    size: Size
    quality: Quality | None = None
    speed: Ratio | None = None
    data: Samples | None = None
    environment: dict[str, str]

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """The report in a file.

        Raises:
            UsageError: it is missing, or no report.
        """
        try:
            return cls.model_validate_json(Path(path).read_bytes())
        except OSError as e:
            raise UsageError(f"report {str(path)!r} cannot be read: {e.strerror}", hint="Check the path.") from e
        except ValidationError as e:
            raise UsageError(
                f"{str(path)!r} is not a report: {complaint(e)}", hint="Reports end in .report.json."
            ) from e

    def write(self, path: Path, *, force: bool = True) -> None:
        """Write the report, whole or not at all."""
        with written(path, force=force) as temporary:
            temporary.write_text(self.json_text(), encoding="utf-8")

    def json_text(self) -> str:
        """The report as JSON."""
        return json.dumps(self.model_dump(mode="json"), indent=1) + "\n"

    def warnings(self) -> list[Finding]:
        """The findings that ask for something."""
        return [f for f in self.findings if f.level in (Level.WARNING, Level.BROKEN)]


def report_path(artifact: Path) -> Path:
    """Where the report of an artifact lies."""
    return artifact.with_name(artifact.name + ".report.json")


def now() -> str:
    """The time in UTC, to the second, in ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def environment(distributions: set[str]) -> dict[str, str]:
    """Versions of Python, the system and the distributions named, as far as they are installed."""
    found: dict[str, str] = {"python": platform.python_version(), "system": platform.platform()}
    for name in sorted(distributions | {"quantized-model", "numpy"}):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def rounded(value: float, digits: int = 4) -> float | None:
    """The value for a report: None where it is not finite, which JSON cannot hold."""
    return round(value, digits) if value == value and abs(value) != float("inf") else None
