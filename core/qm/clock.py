"""Timing that a difference can be read from: alternating blocks, fresh processes, and a check against itself first.

``compare`` sets two artifacts against each other, ``measure`` times one, ``noise_floor`` says what a difference must
exceed on this machine now.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter

import numpy as np

from qm.interval import Interval, of_rounds
from qm.measurement import Bounds, Latency, Ratio, StoppedBy, least_samples
from qm.progress import Progress, Silent
from qm.target import host
from qm.types import Batch
from qm.worker import Worker

Open = Callable[[], Worker]
"""Opens an artifact in a fresh process."""

LEAST_ROUNDS = 3
LEAST_BLOCKS = 10
MOST_BLOCKS = 30
LEAST_RUNS = 10
MOST_RUNS = 2000
DROPPED = 3
BLOCK_S = 0.02
"""A block of fast runs lasts at least this long, so that the clock and the wake-up of a process do not count."""
LEAST_TIMING_S = 0.5
"""A round times at least this long, however long its processes took to start."""
AGREE = 0.05
"""Two warm-up windows agree when their medians differ by no more than this share."""
WARM_UP_SHARE = 0.1
WARM_UP_CAP_S = 3.0
NOISE_SHARE = 0.2
"""Share of the time that goes into the noise floor."""
PERCENTILES = {"p10": 0.1, "p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99.9": 0.999}


@dataclass(frozen=True)
class Grain:
    """What a block is made of."""

    runs: int
    drop: int

    @classmethod
    def fitting(cls, run_s: float, left_s: float) -> Grain:
        """Blocks for runs of ``run_s``, small enough for three pairs of them in the time left, where runs are slow."""
        runs = min(MOST_RUNS, max(LEAST_RUNS, math.ceil(BLOCK_S / run_s)))
        affordable = int(left_s / (6 * run_s))
        if affordable >= runs + DROPPED:
            return cls(runs, DROPPED)
        if affordable >= LEAST_RUNS + DROPPED:
            return cls(affordable - DROPPED, DROPPED)
        drop = min(DROPPED, max(1, affordable // 4))
        return cls(max(1, affordable - drop), drop)


@dataclass
class Side:
    """The blocks of one artifact in one process."""

    worker: Worker
    batch: Batch
    blocks: list[list[float]] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    settled: bool = False
    peak_bytes: int = 0

    def time(self, grain: Grain) -> None:
        """Time one more block."""
        timed = self.worker.timed(self.batch, runs=grain.runs, drop=grain.drop)
        self.blocks.append(timed.seconds)
        self.cpu_s.append(timed.cpu_s)

    def warm_up(self, cap_s: float) -> float:
        """Run until the medians of two successive windows agree, or the cap is reached.

        What one run costs, in seconds: the last median, and the time to empty the caches where they are to be cold.
        """
        end = perf_counter() + cap_s
        (first,) = self.worker.block(self.batch, runs=1, drop=0)
        cost_s = max(first + self.worker.evict_s, 1e-9)
        window = min(MOST_RUNS, max(5, math.ceil(BLOCK_S / cost_s)))
        window = max(1, min(window, int(cap_s / (2 * cost_s))))
        latest = first
        while True:
            previous, latest = latest, median(self.worker.block(self.batch, runs=window, drop=0))
            self.settled = abs(latest / previous - 1) <= AGREE
            if self.settled or perf_counter() >= end:
                return latest + self.worker.evict_s


@dataclass(frozen=True)
class Round:
    """Blocks in alternation, in one pair of fresh processes; a single artifact has one side."""

    sides: tuple[Side, ...]
    grain: Grain
    cost_s: float

    def ratios(self) -> list[float]:
        """The logarithm of time before over time after, pair by pair."""
        before, after = (side.blocks for side in self.sides)
        return [math.log(median(b) / median(a)) for b, a in zip(before, after, strict=True)]

    def cpu_ratios(self) -> list[float] | None:
        """The same of processor time; None where its clock is too coarse."""
        before, after = (side.cpu_s for side in self.sides)
        if min(*before, *after) <= 0:
            return None
        return [math.log(b / a) for b, a in zip(before, after, strict=True)]


def compare(
    open_before: Open,
    open_after: Open,
    batch: Batch,
    *,
    batch_after: Batch | None = None,
    precision: float = 0.02,
    time_s: float = 60.0,
    noise: float | None = None,
    progress: Progress | None = None,
    seed: int = 0,
) -> Ratio:
    """How many times as fast the second is as the first.

    ``precision`` is the half width of the interval, as a share of the ratio, at which to stop; ``time_s`` the time at
    which to stop in any case, three rounds apart. ``noise`` is the noise floor where it is known already.
    """
    start = perf_counter()
    rng = np.random.default_rng(seed)
    if noise is None:
        noise = noise_floor(open_before, batch, time_s=NOISE_SHARE * time_s, seed=seed)
    deadline = start + time_s
    rounds: list[Round] = []
    stopped_by: StoppedBy = "time"
    plan = _rounds([(open_before, batch), (open_after, batch_after or batch)], deadline, rng)
    for made in (progress or Silent()).track(plan, "Timing", LEAST_ROUNDS):
        rounds.append(made)
        if _is_look(len(rounds)) and _half_width(_log_ratio(rounds, rng)) <= math.log1p(precision):
            stopped_by = "precision"
            break
    return _ratio(rounds, rng, noise=noise, precision=precision, time_s=time_s, stopped_by=stopped_by)


def noise_floor(open_it: Open, batch: Batch, *, time_s: float = 12.0, seed: int = 0) -> float:
    """What two processes of the same artifact may differ by, as a share: the far end of the interval of their ratio."""
    rng = np.random.default_rng(seed)
    only = _round([(open_it, batch)] * 2, time_s, rng)
    interval = of_rounds([only.ratios()], rng)
    return math.expm1(max(abs(interval.low), abs(interval.high)))


def measure(
    worker: Worker,
    batch: Batch,
    *,
    precision: float = 0.02,
    time_s: float = 10.0,
    progress: Progress | None = None,
    seed: int = 0,
) -> Latency:
    """The latency of one artifact, in the process that is open; its interval knows nothing of other processes."""
    start = perf_counter()
    rng = np.random.default_rng(seed)
    side = Side(worker, batch)
    run_s = side.warm_up(min(WARM_UP_CAP_S, 2 * WARM_UP_SHARE * time_s))
    grain = Grain.fitting(run_s, start + time_s - perf_counter())
    stopped_by: StoppedBy = "time"

    def blocks() -> Iterator[list[float]]:
        while len(side.blocks) < 2 or perf_counter() < start + time_s:
            side.time(grain)
            yield [math.log(median(b)) for b in side.blocks]

    for logs in (progress or Silent()).track(blocks(), "Timing", LEAST_BLOCKS):
        if len(logs) % LEAST_BLOCKS == 0 and _half_width(of_rounds([logs], rng)) <= math.log1p(precision):
            stopped_by = "precision"
            break
    side.peak_bytes = worker.peak_bytes()
    return _latency([Round((side,), grain, perf_counter() - start)], 0, rng, stopped_by)


def _rounds(opens: Sequence[tuple[Open, Batch]], deadline: float, rng: np.random.Generator) -> Iterator[Round]:
    """Rounds until the time is up, at least three."""
    cost_s = 0.0
    made = 0
    while made < LEAST_ROUNDS or perf_counter() + cost_s <= deadline:
        share_s = (deadline - perf_counter()) / max(1, LEAST_ROUNDS - made)
        latest = _round(opens, share_s, rng)
        cost_s, made = latest.cost_s, made + 1
        yield latest


def _round(opens: Sequence[tuple[Open, Batch]], share_s: float, rng: np.random.Generator) -> Round:
    """One round: fresh processes, warm-up, then pairs of blocks in random order.

    It goes on for as long as it took to begin, so that most of the time is spent on timing, or until its share is up.
    """
    start = perf_counter()
    with ExitStack() as stack:
        sides = tuple(Side(stack.enter_context(open_it()), batch) for open_it, batch in opens)
        cap_s = min(WARM_UP_CAP_S, WARM_UP_SHARE * max(share_s, 0.0))
        run_s = [side.warm_up(cap_s) for side in sides]
        ready = perf_counter()
        end = max(start + share_s, ready + LEAST_TIMING_S)
        grain = Grain.fitting(min(run_s), (end - ready) * len(sides) * min(run_s) / sum(run_s))
        for made in range(MOST_BLOCKS):
            now = perf_counter()
            enough = made >= LEAST_BLOCKS and now - ready >= ready - start
            late = made >= 2 and now + (now - ready) / made > end
            if enough or late:
                break
            for i in rng.permutation(len(sides)):
                sides[i].time(grain)
        for side in sides:
            side.peak_bytes = side.worker.peak_bytes()
    return Round(sides, grain, perf_counter() - start)


def _is_look(rounds: int) -> bool:
    """Whether to look at the interval now: at 3, 5, 7, 10, 15 ... rounds, for each look is a chance to stop by luck."""
    look = LEAST_ROUNDS
    while look < rounds:
        look += max(2, look // 2)
    return look == rounds


def _ratio(
    rounds: Sequence[Round],
    rng: np.random.Generator,
    *,
    noise: float,
    precision: float,
    time_s: float,
    stopped_by: StoppedBy,
) -> Ratio:
    found = _log_ratio(rounds, rng).exp()
    return Ratio(
        before=_latency(rounds, 0, rng, stopped_by),
        after=_latency(rounds, 1, rng, stopped_by),
        ratio=found.estimate,
        low=found.low,
        high=found.high,
        over=found.over,
        cpu=_cpu_ratio(rounds, rng),
        noise_floor=noise,
        rounds=len(rounds),
        blocks=sum(len(r.sides[0].blocks) for r in rounds),
        precision=precision,
        time_s=time_s,
        stopped_by=stopped_by,
    )


def _log_ratio(rounds: Sequence[Round], rng: np.random.Generator) -> Interval:
    return of_rounds([r.ratios() for r in rounds], rng)


def _cpu_ratio(rounds: Sequence[Round], rng: np.random.Generator) -> Bounds | None:
    ratios = [r.cpu_ratios() for r in rounds]
    known = [r for r in ratios if r is not None]
    if len(known) < len(ratios) or any(side.worker.threads != 1 for side in rounds[0].sides):
        return None
    found = of_rounds(known, rng).exp()
    return Bounds(ratio=found.estimate, low=found.low, high=found.high)


def _half_width(interval: Interval) -> float:
    return (interval.high - interval.low) / 2


def _latency(rounds: Sequence[Round], which: int, rng: np.random.Generator, stopped_by: StoppedBy) -> Latency:
    sides = [r.sides[which] for r in rounds]
    worker = sides[0].worker
    found = of_rounds([[math.log(median(block)) for block in side.blocks] for side in sides], rng).exp()
    runs_us = 1e6 * np.concatenate([np.concatenate(side.blocks) for side in sides])
    carried = {name: p for name, p in PERCENTILES.items() if len(runs_us) >= least_samples(max(p, 1 - p))}
    return Latency(
        runtime=worker.runtime,
        threads=worker.threads,
        cpu=host().summary,
        cache=worker.cache,
        latency_us=1e6 * found.estimate,
        low_us=1e6 * found.low,
        high_us=1e6 * found.high,
        percentiles_us={name: float(np.quantile(runs_us, p)) for name, p in carried.items()},
        rounds=len(rounds),
        blocks=sum(len(side.blocks) for side in sides),
        runs=rounds[-1].grain.runs,
        dropped=rounds[-1].grain.drop,
        load_ms=1e3 * median(side.worker.load_s for side in sides),
        peak_bytes=max(side.peak_bytes for side in sides),
        cpu_share=sum(sum(side.cpu_s) for side in sides) / sum(sum(sum(b) for b in side.blocks) for side in sides),
        settled=all(side.settled for side in sides),
        stopped_by=stopped_by,
    )
