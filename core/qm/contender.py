"""A model set against others: its file, its runtime in processes of its own, what it made of the samples."""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qm import clock
from qm.catalog import Catalog, Found
from qm.course import Course, Feed
from qm.errors import QmError
from qm.evaluation import Evaluation, Outcome, matched, matching, outcome
from qm.measurement import Latency, Ratio
from qm.metric import Metric
from qm.plugin import Artifact, Batch, Exporter, Loader, Progress
from qm.report import File
from qm.source import stem
from qm.step import export_model, load_model
from qm.types import Cache
from qm.worker import Worker

TIMEOUT_S = 120.0
PIECE = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What holds for every model of a comparison. ``timeout_s`` is how long one may take to answer."""

    threads: int = 1
    cache: Cache = "hot"
    precision: float = 0.02
    time_s: float = 60.0
    timeout_s: float = TIMEOUT_S
    max_drop: float | None = None
    seed: int = 0

    def worker(self, artifact: Artifact, catalog: Catalog) -> Worker:
        """The artifact, opened by its runtime in a fresh process."""
        name = catalog.benchmark(artifact.format).plugin
        return Worker(artifact, benchmark=name, threads=self.threads, cache=self.cache, timeout_s=self.timeout_s)


@contextmanager
def runnable(
    path: Path, catalog: Catalog, told: Mapping[str, Any] | None = None, *, like: str | None = None
) -> Iterator[tuple[Artifact, Found[Loader]]]:
    """The model as its format's runtime opens it: its file, or its export where the runtime takes another format.

    ``told`` are the options of its loader; ``like`` is the format it is wanted in, where it can be had.
    """
    loader, exporter = _way(path, catalog, like)
    loader.check_ready()
    if exporter is None:
        yield Artifact(path=path, format=loader.card.gives), loader
        return
    exporter.check_ready()
    with tempfile.TemporaryDirectory(prefix="qm-float-") as folder:
        place = Path(folder) / f"{stem(path)}{exporter.card.suffix}"
        model = load_model(catalog.manager, loader, path, told)
        yield export_model(catalog.manager, exporter, model, place), loader


def run_as(path: Path, catalog: Catalog) -> str:
    """The format in which the model is run."""
    loader, exporter = _way(path, catalog, None)
    return loader.card.gives if exporter is None else exporter.card.gives


def _way(path: Path, catalog: Catalog, like: str | None) -> tuple[Found[Loader], Found[Exporter] | None]:
    """Who loads the model, and who writes the file that its runtime opens; None where that is the file at hand."""
    loader = catalog.loader(path)
    fmt = loader.card.gives
    wanted = [exporter for exporter, _ in _bridges(fmt, like, catalog) if not exporter.obstacle()]
    if wanted:
        return loader, wanted[0]
    able = sorted((f for f in catalog.all(Exporter) if fmt in f.card.takes), key=lambda f: f.card.float_only)
    if not able or (path.is_file() and (path.suffix.lower(), fmt) in {(f.card.suffix, f.card.gives) for f in able}):
        return loader, None
    return loader, next((f for f in able if not f.obstacle()), able[0])


def _bridges(fmt: str, like: str | None, catalog: Catalog) -> list[tuple[Found[Exporter], Found[Loader]]]:
    return list(catalog.bridges(fmt, {like})) if like else []


def apart(path: Path, runtimes: tuple[str, str], catalog: Catalog, like: str) -> str:
    """Why the model is run by another runtime than the one it is compared with, which takes ``like``."""
    fmt = catalog.loader(path).card.gives
    ways = _bridges(fmt, like, catalog)
    obstacles = (exporter.obstacle() for exporter, _ in ways)
    reason = next((o.message for o in obstacles if o), f"no installed plugin writes {fmt} models as {like}")
    return f"run by different runtimes, {runtimes[0]} and {runtimes[1]}, which is part of what differs: {reason}"


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
    terms = Terms(threads=threads)
    return clock.compare(
        lambda: terms.worker(before, catalog),
        lambda: terms.worker(after, catalog),
        batch,
        precision=precision,
        time_s=time_s,
        seed=seed,
        progress=progress,
    )


def gzip_nbytes(artifact: Artifact) -> int:
    """Bytes of the artifact's files, each compressed as gzip does by default."""
    path = artifact.path
    files = [f for f in path.rglob("*") if f.is_file()] if path.is_dir() else [path]
    total = 0
    for file in [*files, *path.parent.glob(path.name + ".data")]:
        squeezed = zlib.compressobj(wbits=31)
        with file.open("rb") as f:
            while piece := f.read(PIECE):
                total += len(squeezed.compress(piece))
        total += len(squeezed.flush())
    return total


@dataclass
class Contender:
    """One model on its way through a comparison. What it failed of ends its way, and nobody else's."""

    name: str
    path: Path
    artifact: Artifact
    file: File
    gzip_nbytes: int
    worker: Worker
    feed: Feed = field(default_factory=lambda: Feed((), {}))
    evaluation: Evaluation | None = None
    latency: Latency | None = None
    speed: Ratio | None = None
    failure: QmError | None = None
    notes: list[str] = field(default_factory=list)

    def evaluate(self, before: Batch, after: Batch, label: int | None, first: Outcome, own: Outcome) -> None:
        """Take in one sample: the outputs of the first contender and its own, and what both amount to."""
        if self.evaluation is None:
            self.evaluation = Evaluation()
        if not self.evaluation.comparison.samples and (note := matching(before, after)):
            self.notes.append(note)
        self.evaluation.update(before, matched(before, after), label, outcomes=(first, own))


def judge(
    first: Contender, others: Sequence[Contender], course: Course, metric: Metric | None, progress: Progress
) -> None:
    """Run every contender on the same samples, and compare each with the first, the first with itself.

    Raises:
        QmError: the first failed; of any other, its ``failure`` says so.
    """
    labels = course.labels
    walks = {id(c.feed.batches): iter(c.feed.batches) for c in (first, *others)}
    for c in (first, *others):
        c.evaluation = Evaluation()
    for position, index in enumerate(progress.track(course.indices, "judging", len(course))):
        label = None if labels is None else labels[position]
        # Most contenders share one walk: each sample is read once for all of them.
        batches = {key: next(walk) for key, walk in walks.items()}
        before = next(first.worker.run([first.feed.renamed(batches[id(first.feed.batches)])]))
        made = outcome(before, label, index, metric)
        first.evaluate(before, before, label, made, made)
        for c in [c for c in others if c.failure is None]:
            try:
                raw = next(c.worker.run([c.feed.renamed(batches[id(c.feed.batches)])]))
                after = matched(before, raw)
                c.evaluate(before, raw, label, made, outcome(after, label, index, metric))
            except QmError as e:
                c.failure = e
