"""Models meet: each is opened, run on the same samples and timed by one clock; who fails is out, the rest go on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from time import perf_counter
from typing import Any

from qm import clock
from qm.catalog import Catalog
from qm.contender import Contender, Terms, apart, gzip_nbytes, judge, run_as, runnable
from qm.contest import Contest, Entry, Failed, Share
from qm.course import Course
from qm.errors import QmError
from qm.front import front
from qm.judgement import quality_of
from qm.measurement import Ratio
from qm.metric import Metric, metric_change
from qm.plugin import Artifact, Progress, Silent
from qm.report import File, now
from qm.source import is_function
from qm.target import host

ACCURACY_MARGIN = 0.01
"""One point: the loss of accuracy that is allowed where nothing else is said."""

Watch = Callable[["Meet", str, str], None]
"""Is told the name of a model and what is being done with it; called between measurements, never during one."""


@dataclass
class Meet:
    """A comparison under way. ``contest`` is what is known of it so far.

    Models that are ``alike`` are run in the format of the last, where they can be had in it.
    """

    paths: Sequence[Path]
    data: Any
    catalog: Catalog
    terms: Terms = field(default_factory=Terms)
    metric: Metric | None = None
    progress: Progress = field(default_factory=Silent)
    watch: Watch | None = None
    alike: bool = False
    contenders: dict[int, Contender] = field(default_factory=dict)
    failures: dict[int, QmError] = field(default_factory=dict)
    course: Course | None = None
    timed_against: Contender | None = None
    noise: float | None = None
    notes: list[str] = field(default_factory=list)

    def run(self) -> Contest:
        """The whole comparison.

        Raises:
            QmError: no model is left that could be run.
        """
        self._stack = ExitStack()
        with self._stack:
            like = run_as(self.paths[-1], self.catalog) if self.alike else None
            for place in range(len(self.paths)):
                self._open(place, like)
            self._judge()
            for c in self.contenders.values():
                c.worker.close()
            self._time()
        return self.contest()

    @property
    def live(self) -> list[Contender]:
        """Those that have not failed, in the order they were named."""
        return [c for c in self.contenders.values() if c.failure is None]

    @property
    def errors(self) -> list[QmError]:
        """What failed, the models in the order they were named."""
        own = {place: c.failure for place, c in self.contenders.items() if c.failure is not None}
        return [error for _, error in sorted({**self.failures, **own}.items())]

    def contest(self) -> Contest:
        """What is known so far; the front, once all were timed."""
        entries = [self._entry(place, name) for place, name in enumerate(self.names)]
        judged = (c for c in self.contenders.values() if c.evaluation is not None)
        first = next(judged, None)
        synthetic = self.course is not None and self.course.samples is None
        beaten, respects = front(entries, synthetic=synthetic) if self.timed_against else ({}, ())
        placed = [
            e.model_copy(update={"on_front": beaten[e.name] is None, "beaten_by": beaten[e.name]})
            if e.name in beaten
            else e
            for e in entries
        ]
        samples = None if self.course is None else self.course.samples
        return Contest(
            created=now(),
            cpu=host().summary,
            entries=tuple(placed),
            first=None if first is None else first.name,
            timed_against=None if self.timed_against is None else self.timed_against.name,
            data=None if samples is None else samples.source,
            samples=0 if samples is None else len(samples),
            synthetic=synthetic,
            max_drop=self.terms.max_drop,
            threads=self.terms.threads,
            cache=self.terms.cache,
            noise_floor=self.noise,
            front_over=respects,
            notes=tuple(self.notes),
        )

    @cached_property
    def names(self) -> list[str]:
        """What the models are called: the last parts of their paths, as many as it takes to tell them apart."""
        return short_names(self.paths)

    def _say(self, name: str, what: str) -> None:
        if self.watch is not None:
            self.watch(self, name, what)

    def _open(self, place: int, like: str | None) -> None:
        path, name = self.paths[place], self.names[place]
        self._say(name, "opening")
        try:
            artifact, _ = self._stack.enter_context(runnable(path, self.catalog, like=like))
            # What a function makes is on disk in its export only.
            stored = artifact if is_function(path) else Artifact(path=path, format=artifact.format)
            file = File.of(stored).model_copy(update={"path": str(path)})
            worker = self._stack.enter_context(self.terms.worker(artifact, self.catalog))
        except QmError as e:
            self.failures[place] = e
            return
        self.contenders[place] = Contender(name, path, artifact, file, gzip_nbytes(stored), worker)

    def _judge(self) -> None:
        """On the same samples, against the first that can be run on all of them."""
        while self.live:
            first, *others = self.live
            try:
                course = self._course(first, others)
                ready = [c for c in others if c.failure is None]
                self._say(first.name, "judging")
                judge(first, ready, course, self.metric, self.progress)
            except QmError as e:
                first.failure, first.evaluation = e, None
                continue
            for c in others:
                c.evaluation = c.evaluation if c.failure is None else None
            self.course = course
            self._note_course(course)
            return
        raise self.errors[0]

    def _course(self, first: Contender, others: Sequence[Contender]) -> Course:
        course = Course.laid(self.data, first.worker, self.terms.seed)
        used = {index for c in (first, *others) for index in course.used_by(c.path)}
        course = course.without(used)
        self.notes = []
        if used:
            made = "the artifact" if len(self.paths) < 3 else "one of the models"
            self.notes.append(f"left out {len(used)} samples that were used to make {made}, as its report says")
        first.feed, _ = course.feed(first.worker)
        for c in others:
            c.notes = []
            try:
                c.feed, note = course.feed(c.worker)
            except QmError as e:
                c.failure = e
            else:
                c.notes += [note] if note else []
        return course

    def _note_course(self, course: Course) -> None:
        self._note_runtimes()
        samples = course.samples
        if samples is None:
            self.notes.append("no data: run on made-up inputs, from which nothing follows for accuracy; give --data")
            return
        self.notes += samples.notes
        if len(samples) == 1:
            self.notes.append("one sample: that is an example, and no measurement of accuracy")
        if samples.labels is None and self.metric is None:
            self.notes.append("the samples have no labels: agreement with the first model is not accuracy")

    def _note_runtimes(self) -> None:
        """How the first came into the last one's runtime, or why it did not."""
        first, last = self.live[0], self.live[-1]
        if not self.alike or first is last:
            return
        if first.artifact.format != last.artifact.format:
            runtimes = first.worker.runtime, last.worker.runtime
            self.notes.append(apart(first.path, runtimes, self.catalog, last.artifact.format))
        elif first.artifact.path != first.path:
            name, suffix = first.name, first.artifact.path.suffix
            self.notes.append(f"{name} was exported to {suffix} for this, so that both run by {last.worker.runtime}")

    def _time(self) -> None:
        """The noise floor once, then each against the first that can be timed at all."""
        deadline = perf_counter() + self.terms.time_s
        for base in self.live:
            if len(self.live) == 1:
                self._time_alone(base)
                return
            self._say(base.name, "timing it against itself")
            try:
                self.noise = clock.noise_floor(
                    self._opener(base),
                    base.feed.first(),
                    time_s=clock.NOISE_SHARE * self.terms.time_s,
                    seed=self.terms.seed,
                )
            except QmError as e:
                base.failure = e
                continue
            self.timed_against = base
            break
        others = [c for c in self.live if c is not self.timed_against]
        for i, c in enumerate(others):
            self._say(c.name, "timing")
            try:
                self._race(c, max(0.0, deadline - perf_counter()) / (len(others) - i))
            except QmError as e:
                c.failure = e
        if others and not any(c.speed for c in others) and self.timed_against is not None:
            self._time_alone(self.timed_against)

    def _race(self, c: Contender, time_s: float) -> None:
        base = self.timed_against
        assert base is not None
        found: Ratio = clock.compare(
            self._opener(base),
            self._opener(c),
            base.feed.first(),
            batch_after=c.feed.first(),
            precision=self.terms.precision,
            time_s=time_s,
            noise=self.noise,
            seed=self.terms.seed,
            progress=self.progress,
        )
        # The remedy that the answer names is the user's own option, not this model's share of the time.
        c.speed = found.model_copy(update={"time_s": self.terms.time_s})
        c.latency = found.after
        base.latency = base.latency or found.before

    def _opener(self, c: Contender) -> clock.Open:
        return partial(self.terms.worker, c.artifact, self.catalog)

    def _time_alone(self, c: Contender) -> None:
        self._say(c.name, "timing")
        self.timed_against = c
        try:
            with self.terms.worker(c.artifact, self.catalog) as worker:
                c.latency = clock.measure(
                    worker,
                    c.feed.first(),
                    precision=self.terms.precision,
                    time_s=self.terms.time_s,
                    progress=self.progress,
                    seed=self.terms.seed,
                )
        except QmError as e:
            c.failure = e

    def _entry(self, place: int, name: str) -> Entry:
        c = self.contenders.get(place)
        if c is None:
            failure = self.failures.get(place)
            return Entry(name=name, failed=None if failure is None else Failed.of(failure))
        entry = Entry(
            name=name,
            file=c.file,
            gzip_nbytes=c.gzip_nbytes,
            latency=c.latency,
            speed=c.speed,
            failed=None if c.failure is None else Failed.of(c.failure),
            notes=tuple(c.notes),
        )
        return entry if self.course is None else entry.model_copy(update=self._judged(c, self.course))

    def _judged(self, c: Contender, course: Course) -> dict[str, Any]:
        evaluation = c.evaluation
        if evaluation is None or not evaluation.comparison.samples:
            return {}
        margin = ACCURACY_MARGIN if self.terms.max_drop is None else self.terms.max_drop
        quality = quality_of(
            evaluation, synthetic=course.samples is None, indices=course.indices, margin=None if self.metric else margin
        )
        told: dict[str, Any] = {"quality": quality}
        if quality.accuracy is not None:
            hits = sum(a == b for a, b in zip(evaluation.after, evaluation.labels, strict=True))
            told["accuracy"] = Share.of(hits, len(evaluation.labels))
        if self.metric is not None and evaluation.values:
            before, after = zip(*evaluation.values, strict=True)
            told["metric"] = metric_change(
                self.metric.name, before, after, margin=self.terms.max_drop, seed=self.terms.seed
            )
        return told


def compare(
    paths: Sequence[Path],
    *,
    data: Any = None,
    catalog: Catalog,
    terms: Terms,
    metric: Metric | None = None,
    progress: Progress,
    watch: Watch | None = None,
) -> Contest:
    """Compare any number of models, of whatever formats, with the first of them.

    Raises:
        QmError: none of them can be run.
    """
    return Meet(paths, data, catalog, terms, metric, progress, watch).run()


def short_names(paths: Sequence[Path]) -> list[str]:
    """The paths' last parts, as many as it takes to tell them apart."""
    for count in range(1, max(len(p.parts) for p in paths) + 1):
        names = [str(Path(*p.parts[-count:])) for p in paths]
        if len(set(names)) == len(set(paths)):
            break
    return [name if names.index(name) == i else f"{name} ({i + 1})" for i, name in enumerate(names)]
