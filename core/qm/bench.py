"""One artifact against another on their real runtimes: size, speed, and answers on the same samples."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from qm import clock
from qm.catalog import Catalog, Found
from qm.data import Samples, open_data
from qm.errors import UsageError
from qm.evaluation import evaluate
from qm.judgement import quality_of
from qm.measurement import Latency, Ratio
from qm.plugin import Artifact, Batch, Loader, Progress
from qm.report import File, Quality, Report, report_path
from qm.split import Batches
from qm.step import export_model, load_model
from qm.strict import Strict
from qm.synthetic import synthetic
from qm.worker import Worker


class BenchmarkReport(Strict):
    """What was measured of one artifact, and of the baseline where there is one."""

    artifact: File
    baseline: File | None = None
    latency: Latency | None = None
    speed: Ratio | None = None
    quality: Quality | None = None
    accuracy: float | None = None
    samples: int = 0
    notes: tuple[str, ...] = ()


@contextmanager
def runnable(path: Path, catalog: Catalog) -> Iterator[tuple[Artifact, Found[Loader]]]:
    """The file as its format's runtime opens it: itself, or its export where the runtime takes another suffix."""
    loader = catalog.loader(path)
    loader.check_ready()
    fmt = loader.card.gives
    exporter = catalog.exporter(fmt)
    if path.is_file() and path.suffix.lower() == exporter.card.suffix:
        yield Artifact(path=path, format=fmt), loader
        return
    with tempfile.TemporaryDirectory(prefix="qm-float-") as folder:
        place = Path(folder) / f"{path.stem}{exporter.card.suffix}"
        yield export_model(catalog.manager, exporter, load_model(catalog.manager, loader, path), place), loader


def race(
    before: Artifact,
    after: Artifact,
    batch: Batch,
    *,
    catalog: Catalog,
    threads: int = 1,
    precision: float = 0.02,
    time_s: float,
    seed: int,
    progress: Progress,
) -> Ratio:
    """How many times as fast ``after`` is as ``before``, each by its own runtime, in processes of their own."""

    def opener(artifact: Artifact) -> clock.Open:
        name = catalog.benchmark(artifact.format).plugin
        return lambda: Worker(artifact, benchmark=name, threads=threads)

    return clock.compare(
        opener(before), opener(after), batch, precision=precision, time_s=time_s, seed=seed, progress=progress
    )


def compare(
    path: Path,
    baseline: Path | None,
    *,
    data: Any,
    catalog: Catalog,
    threads: int,
    precision: float,
    time_s: float,
    seed: int,
    progress: Progress,
) -> BenchmarkReport:
    """Measure one artifact, against a baseline where there is one.

    Raises:
        UsageError: a file is broken, or the data do not fit.
        PluginError: a runtime failed.
    """
    with runnable(path, catalog) as (artifact, loader):
        name = catalog.benchmark(artifact.format).plugin
        with Worker(artifact, benchmark=name, loader=loader.plugin, threads=threads) as worker:
            samples, notes = _samples(data, worker, path, seed)
            batches: Batches = samples if samples is not None else synthetic(worker.inputs, 1, seed)
            if samples is None:
                notes.append("no data: timed on made-up inputs; give --data to see accuracy")
            if baseline is None:
                return _alone(path, artifact, worker, batches, samples, notes, precision, time_s, seed, progress)
        with runnable(baseline, catalog) as (reference, _):
            return _against(
                (path, artifact), (baseline, reference), batches, samples, notes,
                catalog=catalog, threads=threads, precision=precision, time_s=time_s, seed=seed, progress=progress,
            )  # fmt: skip


def _alone(
    path: Path,
    artifact: Artifact,
    worker: Worker,
    batches: Batches,
    samples: Samples | None,
    notes: list[str],
    precision: float,
    time_s: float,
    seed: int,
    progress: Progress,
) -> BenchmarkReport:
    latency = clock.measure(worker, batches[0], precision=precision, time_s=time_s, progress=progress, seed=seed)
    accuracy = None
    if samples is not None and samples.labels is not None:
        tracked = progress.track(batches, "judging", len(batches))
        found = evaluate(((outputs, outputs) for outputs in worker.run(tracked)), samples.labels)
        accuracy = float(np.mean(np.equal(found.after, found.labels)))
    notes.append("without a --baseline, nothing is said of what was lost or gained")
    return BenchmarkReport(
        artifact=_file(path, artifact), latency=latency, accuracy=accuracy, samples=_count(samples), notes=tuple(notes)
    )


def _against(
    measured: tuple[Path, Artifact],
    against: tuple[Path, Artifact],
    batches: Batches,
    samples: Samples | None,
    notes: list[str],
    *,
    catalog: Catalog,
    threads: int,
    precision: float,
    time_s: float,
    seed: int,
    progress: Progress,
) -> BenchmarkReport:
    after, before = measured[1], against[1]
    with (
        Worker(before, benchmark=catalog.benchmark(before.format).plugin, threads=threads) as one,
        Worker(after, benchmark=catalog.benchmark(after.format).plugin, threads=threads) as other,
    ):
        labels = None if samples is None else samples.labels
        tracked = progress.track(batches, "judging", len(batches))
        evaluation = evaluate(((next(one.run([b])), next(other.run([b]))) for b in tracked), labels)
    speed = race(
        before,
        after,
        batches[0],
        catalog=catalog,
        threads=threads,
        precision=precision,
        time_s=time_s,
        seed=seed,
        progress=progress,
    )
    return BenchmarkReport(
        artifact=_file(*measured),
        baseline=_file(*against),
        speed=speed,
        quality=quality_of(evaluation, synthetic=samples is None),
        samples=_count(samples),
        notes=tuple(notes),
    )


def _samples(data: Any, worker: Worker, path: Path, seed: int) -> tuple[Samples | None, list[str]]:
    """The samples to judge on: those that calibrated the artifact, as its report tells, are left out."""
    if data is None:
        return None, []
    samples = open_data(data, worker.inputs)
    notes = list(samples.notes)
    place = report_path(path)
    if not place.exists():
        return samples, notes
    used = Report.read(place).data
    if used is None or used.fingerprint != samples.fingerprint:
        return samples, notes
    seen = {*used.calibrated, *used.tried}
    kept = [i for i, index in enumerate(samples.indices) if index not in seen]
    if not kept:
        raise UsageError("every sample of the data was used to make the artifact", hint="Give samples that were not.")
    if seen:
        notes.append(f"left out {len(seen)} samples that were used to make the artifact, as its report says")
    return samples.subset(kept), notes


def _file(path: Path, artifact: Artifact) -> File:
    return File.of(Artifact(path=path, format=artifact.format))


def _count(samples: Samples | None) -> int:
    return 0 if samples is None else len(samples)
