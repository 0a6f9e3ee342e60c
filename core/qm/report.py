"""What a run leaves behind beside its artifact: the route, the plan, what was seen, and all it takes to do it again."""

from __future__ import annotations

import importlib.metadata
import json
import math
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Self

from pydantic import Field, ValidationError

from qm.chart import Chart
from qm.errors import UsageError
from qm.file import sha256, written
from qm.measurement import Ratio
from qm.recipe import Recipe
from qm.source import is_function
from qm.strict import Strict, complaint
from qm.target import Target
from qm.types import Activation, Artifact, Model, OpTime
from qm.verdict import Accuracy, Agreement

KEPT_OPERATIONS = 80
KEPT_SPREADS = 6
SHOWN_NAMES = 8


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

    @classmethod
    def of_source(cls, source: Path, model: Model) -> Self:
        """The figures of what a model was loaded from; those of the model itself where a function made it."""
        if is_function(source):
            return cls(path=str(source), format=model.format, nbytes=model.nbytes(), sha256=model.digest())
        return cls.of(Artifact(path=source, format=model.format))


class Samples(Strict):
    """Which samples set ranges, chose among trials and judged the result, by their index in the whole set."""

    source: str
    fingerprint: str
    count: int
    calibrated: tuple[int, ...] = ()
    tried: tuple[int, ...] = ()
    seen: tuple[str, ...] = Field(default=(), description="digests of the samples that calibrated or were tried on")
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


class Outcomes(Strict):
    """What became of each judged sample, one entry a sample in every column; a column that is not known is empty.

    ``index`` counts in the whole set. ``before`` and ``after`` are predicted classes, -1 where the scores were not
    finite. ``sqnr_db`` is of the sample's worst output, None where it is identical or cannot be compared. ``loss`` is
    the cross-entropy of the label in nats, ``metric`` what the user's own metric says.
    """

    index: tuple[int, ...]
    label: tuple[int, ...] = ()
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    sqnr_db: tuple[float | None, ...] = ()
    loss_before: tuple[float, ...] = ()
    loss_after: tuple[float, ...] = ()
    metric_before: tuple[float, ...] = ()
    metric_after: tuple[float, ...] = ()

    def worst_by_sqnr(self, count: int = 5) -> list[int]:
        """Positions of the samples of the lowest SQNR, worst first."""
        known = [i for i, value in enumerate(self.sqnr_db) if value is not None]
        return sorted(known, key=lambda i: self.sqnr_db[i] or 0.0)[:count]

    def worst_by_loss(self, count: int = 5) -> list[int]:
        """Positions of the samples whose loss rose most, worst first; none where it did not rise."""
        rise = [after - before for before, after in zip(self.loss_before, self.loss_after, strict=True)]
        return sorted((i for i, value in enumerate(rise) if value > 0), key=lambda i: -rise[i])[:count]

    def worst_by_metric(self, count: int = 5) -> list[int]:
        """Positions of the samples whose metric fell most, worst first; none where it did not fall."""
        fall = [before - after for before, after in zip(self.metric_before, self.metric_after, strict=True)]
        return sorted((i for i, value in enumerate(fall) if value > 0), key=lambda i: -fall[i])[:count]


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
    outcomes: Outcomes | None = None


class LayerError(Strict):
    """How far a layer's output is from the float model's on the same inputs, the layers before it included.

    ``sqnr_db`` is None where the two are identical.
    """

    layer: str
    sqnr_db: float | None


class Operation(Strict):
    """Time of one operation of a run, as the runtime fused it; ``layer`` is empty where it belongs to none."""

    name: str
    kind: str
    latency_us: float
    layer: str = ""
    integer: bool | None = None

    @classmethod
    def of(cls, op: OpTime) -> Self:
        """The operation, its time to the tenth of a microsecond."""
        return cls(name=op.name, kind=op.kind, latency_us=round(op.latency_us, 1), layer=op.layer, integer=op.integer)


class Profile(Strict):
    """One profile of one file, on one thread, without an interval: shares are to be read from it, not speeds.

    ``operations`` are the slowest, in execution order; what the others took together is in ``rest_us``.
    """

    total_us: float
    operations: tuple[Operation, ...]
    rest_us: float = 0.0

    @classmethod
    def of(cls, ops: Sequence[OpTime]) -> Self | None:
        """The profile with its slowest operations, None where nothing was timed."""
        if not ops:
            return None
        slowest = set(sorted(range(len(ops)), key=lambda i: -ops[i].latency_us)[:KEPT_OPERATIONS])
        rest = sum(op.latency_us for i, op in enumerate(ops) if i not in slowest)
        return cls(
            total_us=round(sum(op.latency_us for op in ops), 1),
            operations=tuple(Operation.of(op) for i, op in enumerate(ops) if i in slowest),
            rest_us=round(rest, 1),
        )


class Spread(Strict):
    """What calibration saw of one tensor, and the range that the integers cover.

    ``counts`` has one entry between each two ``edges``, and adds up to 1. ``sqnr_db`` is what rounding and clipping to
    ``low .. high`` in ``bits`` should leave, ``clipped`` the share of values outside.
    """

    tensor: str
    layer: str
    bits: int
    low: float
    high: float
    edges: tuple[float, ...]
    counts: tuple[float, ...]
    sqnr_db: float | None
    clipped: float

    @classmethod
    def worst(cls, seen: Sequence[Activation]) -> tuple[Self, ...]:
        """Those with the largest error expected, worst first."""
        ranked = sorted(seen, key=lambda a: math.inf if math.isnan(a.sqnr_db) else a.sqnr_db)
        return tuple(cls._of(a) for a in ranked[:KEPT_SPREADS] if all(map(math.isfinite, a.edges)))

    @classmethod
    def _of(cls, seen: Activation) -> Self:
        whole = sum(seen.counts) or 1.0
        return cls(
            tensor=seen.tensor,
            layer=seen.layer,
            bits=seen.bits,
            low=_digits(seen.low),
            high=_digits(seen.high),
            edges=tuple(map(_digits, seen.edges)),
            counts=tuple(_digits(count / whole) for count in seen.counts),
            sqnr_db=rounded(seen.sqnr_db, 2),
            clipped=_digits(seen.clipped),
        )


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
    error_by_layer: tuple[LayerError, ...] = ()
    profile_before: Profile | None = None
    profile_after: Profile | None = None
    activations: tuple[Spread, ...] = ()
    charts: tuple[Chart, ...] = ()
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


def page_path(artifact: Path) -> Path:
    """Where the page of an artifact lies."""
    return artifact.with_name(artifact.name + ".report.html")


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


def shortened(names: Sequence[str]) -> str:
    """The first of the names, and how many more there are."""
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    return ", ".join(names[:SHOWN_NAMES]) + more


def rounded(value: float, digits: int = 4) -> float | None:
    """The value for a report: None where it is not finite, which JSON cannot hold."""
    return round(value, digits) if value == value and abs(value) != float("inf") else None


def _digits(value: float) -> float:
    """The value to five digits: a plot shows no more."""
    return float(f"{value:.5g}")
