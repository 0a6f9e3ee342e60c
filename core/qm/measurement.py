"""What was measured, with its unit, its interval and how it came about: the part of a report that holds timings."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from qm.strict import Strict
from qm.types import Cache

BUSY = 0.9
"""A process of one thread that gets less than this share of a core has company."""

StoppedBy = Literal["precision", "time"]


def least_samples(percentile: float) -> int:
    """How many samples it takes for the largest of them to reach the percentile, given in 0..1, in 95 % of cases."""
    return math.ceil(math.log(0.05) / math.log(percentile))


class Latency(Strict):
    """Time of one run of one artifact, the median over blocks of runs in a row."""

    runtime: str
    threads: int
    cpu: str = Field(description="the processor, and what of it matters to integer kernels")
    cache: Cache = Field(
        default="hot",
        description="hot: the runs of a block follow each other without pause; cold: caches are emptied before each",
    )
    latency_us: float
    low_us: float = Field(description="lower end of the 95 % interval")
    high_us: float = Field(description="upper end of the 95 % interval")
    percentiles_us: dict[str, float] = Field(description="over single runs; only those that so many runs can carry")
    rounds: int = Field(description="fresh processes")
    blocks: int = Field(description="blocks over all rounds")
    runs: int = Field(description="timed runs in a block")
    dropped: int = Field(description="runs at the start of a block that are not timed")
    load_ms: float = Field(description="time to open the artifact, the runtime's import aside")
    peak_bytes: int = Field(description="resident memory at its worst, less that before the artifact was opened")
    cpu_share: float = Field(description="processor time over wall time of the timed runs, all threads together")
    settled: bool = Field(description="whether warm-up ended because two windows agreed, and not at its time cap")
    stopped_by: StoppedBy

    def sentence(self) -> str:
        """The median with its interval and its circumstances."""
        tail = "" if self.settled else "; it had not settled when warm-up ended"
        return (
            f"{duration(self.latency_us)} (95 % interval {duration(self.low_us)} to {duration(self.high_us)}, "
            f"{circumstances(self)}{tail})"
        )


class Bounds(Strict):
    """A ratio between the ends of its 95 % interval."""

    ratio: float
    low: float
    high: float


class Ratio(Strict):
    """How many times as fast ``after`` is as ``before``, the two timed alternately."""

    before: Latency
    after: Latency
    ratio: float = Field(description="time before over time after: above 1 is faster")
    low: float = Field(description="lower end of the 95 % interval")
    high: float = Field(description="upper end of the 95 % interval")
    over: Literal["blocks", "rounds"] = Field(description="what the interval was taken over, the wider of both")
    cpu: Bounds | None = Field(
        default=None, description="the ratio of processor times, of one thread only: deaf to what else the machine does"
    )
    noise_floor: float = Field(description="what a model may differ from itself here and now, as a share")
    rounds: int
    blocks: int = Field(description="pairs of blocks over all rounds")
    precision: float = Field(description="half width of the interval that was asked for, as a share")
    time_s: float = Field(description="time budget")
    stopped_by: StoppedBy

    @property
    def answer(self) -> Literal["faster", "slower", "cannot tell"]:
        """What the interval and the noise floor allow to say."""
        if self.low > 1 and self.ratio > 1 + self.noise_floor:
            return "faster"
        if self.high < 1 and 1 / self.ratio > 1 + self.noise_floor:
            return "slower"
        return "cannot tell"

    def sentence(self) -> str:
        """The answer in words; where none can be given, what would settle it."""
        if self.answer == "faster":
            return f"{self.ratio:.2f}x faster ({_interval(self.low, self.high)}, {self._how()})"
        if self.answer == "slower":
            return f"{1 / self.ratio:.2f}x slower ({_interval(1 / self.high, 1 / self.low)}, {self._how()})"
        difference = max(self.ratio, 1 / self.ratio) - 1
        if self.low <= 1 <= self.high:
            reason = f"{self.ratio:.2f}x the speed, and the {_interval(self.low, self.high)} holds 1"
        else:
            reason = f"difference {_percent(difference)} is below the noise floor {_percent(self.noise_floor)}"
        return f"cannot tell: {reason} ({self._how()}); next: add {self.remedy()}"

    def _how(self) -> str:
        words = f"{circumstances(self.after)}; A/A noise floor ±{_percent(self.noise_floor)}"
        if self.cpu is not None and min(self.before.cpu_share, self.after.cpu_share) < BUSY:
            words += f"; the machine is busy, by processor time {self.cpu.ratio:.2f}x the speed"
            words += f" ({self.cpu.low:.2f} to {self.cpu.high:.2f})"
        return words

    def remedy(self) -> str:
        """The option that would settle it: half the doubt takes four times the time."""
        if self.stopped_by == "precision" and self.low <= 1 <= self.high:
            return f"--precision {50 * self.precision:g}%"
        doubt = max(math.log(self.high / self.low) / 2, math.log1p(self.noise_floor))
        difference = max(abs(math.log(self.ratio)), 1e-9)
        return f"--time {self.time_s * min(16.0, max(2.0, (2 * doubt / difference) ** 2)):.0f}s"


def circumstances(latency: Latency) -> str:
    """How a latency was taken: ``hot, 1 thread, 3 processes x 10 blocks, onnxruntime 1.31.1``."""
    threads = _count(latency.threads, "thread")
    # Runtimes name the threads in their own words, which would say it twice.
    runtime = latency.runtime.removesuffix(f", {threads}")
    processes = _count(latency.rounds, "process")
    blocks = round(latency.blocks / latency.rounds)
    return f"{latency.cache}, {threads}, {processes} x {_count(blocks, 'block')}, {runtime}"


def duration(us: float) -> str:
    """A time in the unit that suits it, with three digits."""
    value, unit = (us / 1e6, "s") if us >= 999_500 else (us / 1e3, "ms") if us >= 999.5 else (us, "µs")
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:.{digits}f} {unit}"


def _interval(low: float, high: float) -> str:
    return f"95 % interval {low:.2f} to {high:.2f}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share < 0.1 else f"{100 * share:.0f} %"


def _count(number: int, noun: str) -> str:
    plural = {"process": "processes"}.get(noun, f"{noun}s")
    return f"{number} {noun if number == 1 else plural}"
