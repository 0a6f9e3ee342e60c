"""What a report says of one artifact, whichever command wrote it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydantic import ValidationError
from pydantic_core import from_json

from qm.bench import BenchmarkReport
from qm.errors import UsageError
from qm.file import sha256
from qm.measurement import Ratio
from qm.report import File, Finding, Quality, Report, report_path
from qm.strict import complaint

SUFFIX = ".report.json"


@dataclass(frozen=True, kw_only=True)
class Subject:
    """An artifact as a report has it; ``accepted`` is None where no audit was made, as by ``qm benchmark``."""

    report: Path
    artifact: File
    original: File | None
    quality: Quality | None
    speed: Ratio | None
    accepted: bool | None = None
    findings: tuple[Finding, ...] = ()
    data: str | None = None

    @classmethod
    def read(cls, path: Path) -> Self:
        """What is in the report of ``qm quantize``, or in what ``qm benchmark --json`` printed.

        Raises:
            UsageError: it is missing, or neither of them.
        """
        try:
            told = from_json(path.read_bytes())
        except OSError as e:
            raise UsageError(f"report {str(path)!r} cannot be read: {e.strerror}", hint="Check the path.") from e
        except ValueError as e:
            raise UsageError(f"{str(path)!r} is not a report, for it is not JSON", hint=_way_to_report(path)) from e
        kind = told if isinstance(told, dict) else {}
        if "entries" in kind:
            raise UsageError(
                f"{str(path)!r} compares several models, and goals are for one",
                hint="Give a file that 'qm quantize' wrote, or 'qm benchmark --json' printed.",
            )
        if "artifact" in kind and "findings" not in kind:
            return cls._of_benchmark(path)
        made = Report.read(path)
        return cls(
            report=path,
            artifact=made.artifact,
            original=made.model,
            quality=made.quality,
            speed=made.speed,
            accepted=made.accepted,
            findings=made.findings,
            data=made.data.source if made.data is not None else None,
        )

    @classmethod
    def _of_benchmark(cls, path: Path) -> Self:
        try:
            made = BenchmarkReport.model_validate_json(path.read_bytes())
        except ValidationError as e:
            raise UsageError(
                f"{str(path)!r} is not a report: {complaint(e)}",
                hint="Give a file that 'qm quantize' wrote, or 'qm benchmark --json' printed.",
            ) from e
        return cls(report=path, artifact=made.artifact, original=made.baseline, quality=made.quality, speed=made.speed)

    def check_hash(self) -> list[str]:
        """Hold the files at hand against the report; what could not be checked, or may matter.

        Raises:
            UsageError: the artifact is another one than that of the report.
        """
        place = self._place()
        if place is None:
            return [f"{self.artifact.path!r} is not at hand: that the report is about it was not checked"]
        found = sha256(place)
        if found != self.artifact.sha256:
            raise UsageError(
                f"{str(place)!r} is not the artifact of {str(self.report)!r}: "
                f"its SHA-256 is {found}, the report's {self.artifact.sha256}",
                hint="Give the report of this file, or make both again.",
            )
        original = Path(self.original.path) if self.original is not None else None
        if self.original is not None and original is not None and original.exists():
            found = sha256(original)
            if found != self.original.sha256:
                return [
                    f"{self.original.path!r} has changed since: its SHA-256 is {found}, "
                    f"the report compares with {self.original.sha256}"
                ]
        return []

    def _place(self) -> Path | None:
        """The artifact: the file that the report lies beside, or else where the report says."""
        named = Path(self.artifact.path)
        candidates = [self.report.parent / named.name, named]
        if self.report.name.endswith(SUFFIX):
            # Of a rejected artifact, the report has the name that was asked for, the file another one.
            candidates.insert(0, self.report.with_name(self.report.name.removesuffix(SUFFIX)))
        return next((c for c in candidates if c.exists()), None)

    def command(self, name: str, *more: str, data: str | None = None) -> str:
        """A command over the artifact, its original and samples; what is not known is left in capitals."""
        original = self.original.path if self.original is not None else "MODEL"
        words = ["qm", name, self.artifact.path, "--baseline", original, "--data", data or self.data or "D", *more]
        return shlex.join(words)


def _way_to_report(path: Path) -> str:
    place = report_path(path)
    return f"Did you mean {str(place)!r}?" if place.exists() else f"Reports end in {SUFFIX}."
