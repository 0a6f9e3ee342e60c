"""One artifact on its real runtime, against a baseline where there is one: size, speed, answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qm.catalog import Catalog
from qm.contender import Terms
from qm.contest import Contest, Entry, Share, json_text
from qm.measurement import Latency, Ratio
from qm.meet import Meet, Watch
from qm.metric import Metric, MetricChange
from qm.plugin import Progress
from qm.report import File, Quality
from qm.strict import Strict
from qm.types import Cache


class BenchmarkReport(Strict):
    """What was measured of one artifact, and of the baseline where there is one."""

    artifact: File
    gzip_nbytes: int | None = None
    baseline: File | None = None
    baseline_gzip_nbytes: int | None = None
    cpu: str = ""
    cache: Cache = "hot"
    threads: int = 1
    latency: Latency | None = None
    speed: Ratio | None = None
    quality: Quality | None = None
    accuracy: Share | None = None
    metric: MetricChange | None = None
    samples: int = 0
    data: str | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, contest: Contest) -> BenchmarkReport:
        """The last model of the contest, against the first where there are two."""
        *before, after = contest.entries
        against: Entry | None = before[0] if before else None
        alone = () if against else ("without a --baseline, nothing is said of what was lost or gained",)
        assert after.file is not None
        return cls(
            artifact=after.file,
            gzip_nbytes=after.gzip_nbytes,
            baseline=against.file if against else None,
            baseline_gzip_nbytes=against.gzip_nbytes if against else None,
            cpu=contest.cpu,
            cache=contest.cache,
            threads=contest.threads,
            latency=None if against else after.latency,
            speed=after.speed,
            quality=after.quality if against else None,
            accuracy=None if against else after.accuracy,
            metric=after.metric,
            samples=contest.samples,
            data=contest.data,
            notes=(*contest.notes, *after.notes, *alone),
        )

    def json_text(self) -> str:
        """The report as JSON."""
        return json_text(self)


def benchmark(
    artifact: Path,
    baseline: Path | None,
    *,
    data: Any,
    catalog: Catalog,
    terms: Terms,
    metric: Metric | None = None,
    progress: Progress,
    watch: Watch | None = None,
) -> BenchmarkReport:
    """Measure one artifact, against a baseline where there is one, in the artifact's runtime if it can be had there.

    Raises:
        UsageError: a file is broken, or the data do not fit.
        PluginError: a runtime failed.
    """
    paths = [artifact] if baseline is None else [baseline, artifact]
    meet = Meet(paths, data, catalog, terms, metric, progress, watch, alike=True)
    contest = meet.run()
    if errors := meet.errors:
        raise errors[0]
    return BenchmarkReport.of(contest)
