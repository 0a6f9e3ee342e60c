"""A user's own measure of how good an answer is, and what its change between two models allows to say."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from qm import function
from qm.errors import QmError, UsageError
from qm.interval import Interval, Z, of_mean, student
from qm.strict import Strict
from qm.types import Batch
from qm.verdict import MANY, POWER_Z, Answer, verdict

RULE_OF_THREE = 3.0
CONTRACT = "It is called as function(outputs, label) for each sample, and returns one number: higher is better."


@dataclass(frozen=True)
class Metric:
    """``function(outputs, label)``, called once a sample; higher is better.

    ``outputs`` maps output names, those of the first model, to arrays with their batch axis (of length 1); ``label`` is
    the sample's class index, None where the data have no labels.
    """

    name: str
    function: Callable[[dict[str, Any], int | None], Any]

    def __call__(self, outputs: Batch, label: int | None, index: int) -> float:
        """The value for the sample of that index.

        Raises:
            UsageError: the function raised, or what it returned is not a finite number.
        """
        try:
            value = self.function(dict(outputs), label)
        except QmError:
            raise
        except Exception as e:
            raise UsageError(
                f"metric {self.name!r} raised {type(e).__name__} on sample {index}: {e}", hint=CONTRACT
            ) from e
        array = np.asarray(value)
        if array.size != 1 or array.dtype.kind not in "biuf":
            raise UsageError(f"metric {self.name!r} returned {_brief(value)} for sample {index}", hint=CONTRACT)
        number = float(array.reshape(()))
        if not math.isfinite(number):
            raise UsageError(
                f"metric {self.name!r} returned {number} for sample {index}",
                hint="Return a finite number for every sample; leave samples out that cannot be judged.",
            )
        return number


class MetricChange(Strict):
    """The mean of a user's metric before and after on the same samples."""

    name: str
    samples: int
    before: float
    after: float
    difference: float = Field(description="after less before")
    low: float | None = Field(description="lower end of the paired 95 % interval; None for a single sample")
    high: float | None = Field(description="upper end of the paired 95 % interval; None for a single sample")
    margin: float | None = Field(default=None, description="the loss that was allowed, in the metric's own units")
    answer: Answer | None = Field(default=None, description="the verdict against the margin")
    needed: int | None = Field(default=None, description="samples it would take to tell, about")

    def sentence(self) -> str:
        """The verdict, and what it rests on."""
        bounds = "no interval from one sample" if self.low is None else f"{self.low:+.4g} to {self.high:+.4g}"
        values = f"{self.before:.4g} before, {self.after:.4g} after"
        facts = f"{values}, {self.difference:+.4g} ({bounds}), {self.samples} samples"
        if self.answer is None:
            return facts
        if self.answer is Answer.CANNOT_TELL:
            many = "more" if self.needed is None else f"about {self.needed:,}"
            return f"cannot tell, needs {many} samples: {facts}"
        return f"{self.answer} by more than {self.margin:g}: {facts}"


def find_metric(named: str | Callable[..., Any]) -> Metric:
    """The metric that ``package.module:function`` names, or the function itself.

    Raises:
        UsageError: there is no such function.
    """
    if callable(named):
        return Metric(getattr(named, "__name__", repr(named)), named)
    if not all(named.partition(":")):
        raise UsageError(f"metric {named!r} is not of the form package.module:function", hint=CONTRACT)
    return Metric(named, cast(Callable[..., Any], function.find(named)))


def metric_change(
    name: str, before: Sequence[float], after: Sequence[float], *, margin: float | None = None, seed: int = 0
) -> MetricChange:
    """The change of a metric's mean, ``(samples,)`` of values each, by a paired bootstrap over samples."""
    differences = np.subtract(after, before)
    found = paired_mean(differences, scale=float(np.abs([before, after]).max()), seed=seed)
    single = len(differences) < 2
    answer = None if margin is None else Answer.CANNOT_TELL if single else verdict(found, margin)
    cannot = answer is Answer.CANNOT_TELL and margin is not None and not single
    return MetricChange(
        name=name,
        samples=len(differences),
        before=float(np.mean(before)),
        after=float(np.mean(after)),
        difference=found.estimate,
        low=None if single else found.low,
        high=None if single else found.high,
        margin=margin,
        answer=answer,
        needed=_needed(found, differences, margin or 0.0) if cannot else None,
    )


def paired_mean(differences: NDArray[np.float64], *, scale: float, seed: int) -> Interval:
    """The mean of differences, one a sample: a bootstrap, or Student's interval where that is wider, as on few samples.

    Where no sample differs, as many as 3 of n may still do so among all there are, by as much as ``scale`` each.
    Source: Hanley and Lippman-Hand, "If nothing goes wrong, is everything all right?", 1983.
    """
    n = len(differences)
    mean = float(np.mean(differences))
    if n < 2:
        return Interval(mean, -math.inf, math.inf)
    if not differences.any():
        return Interval(mean, -scale * min(1.0, RULE_OF_THREE / n), scale * min(1.0, RULE_OF_THREE / n))
    found = of_mean(differences, np.random.default_rng(seed))
    half = student(n - 1) * float(np.std(differences, ddof=1)) / math.sqrt(n)
    return Interval(mean, min(found.low, mean - half), max(found.high, mean + half))


def _needed(found: Interval, differences: NDArray[np.float64], margin: float) -> int | None:
    """Samples that would settle it in 4 of 5 cases, were mean and deviation to stay as they are; None for very many.

    Source: the sample size of a paired comparison of means, such as in Cohen, "Statistical power analysis", 1988.
    """
    distance = abs(found.estimate + margin)
    if distance == 0:
        return None
    if differences.any():
        samples = ((Z + POWER_Z) * float(np.std(differences, ddof=1)) / distance) ** 2
    else:
        samples = len(differences) * found.high / distance
    return math.ceil(samples) if samples <= MANY else None


def _brief(value: object) -> str:
    shape = getattr(value, "shape", None)
    return f"an array of shape {list(shape)}" if shape else f"{type(value).__name__!r}, not a number"
