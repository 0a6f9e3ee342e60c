"""What paired outcomes allow to say: the same samples through the model before and the model after."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from qm.errors import UsageError
from qm.interval import Interval, Z, wilson
from qm.strict import Strict

POWER_Z = 0.8416212335729143
"""The 80 % quantile of the normal distribution: needed samples settle the question in 4 of 5 cases."""
MANY = 1_000_000
NO_CLASS = -1
"""The prediction of a model whose scores are not finite. It is never right and agrees with nothing."""


class Answer(StrEnum):
    """The only three things that can be said against a margin."""

    NOT_WORSE = "not worse"
    WORSE = "worse"
    CANNOT_TELL = "cannot tell"


class ClassChange(Strict):
    """How one class fared."""

    label: int
    samples: int
    right_before: int
    right_after: int


class Accuracy(Strict):
    """Top-1 accuracy before and after on the same labelled samples, as shares."""

    samples: int
    before: float
    after: float
    difference: float = Field(description="after less before")
    low: float = Field(description="lower end of the paired 95 % interval of the difference")
    high: float = Field(description="upper end of the paired 95 % interval of the difference")
    p_value: float = Field(description="exact McNemar, two-sided: how odd the flips were if neither model were better")
    lost: int = Field(description="samples right before and wrong after")
    gained: int = Field(description="samples wrong before and right after")
    worst_class: ClassChange | None = Field(description="the class that lost most samples on balance, if one did")
    margin: float | None = Field(default=None, description="the loss that was allowed")
    answer: Answer | None = Field(default=None, description="the verdict against the margin")
    needed: int | None = Field(default=None, description="samples it would take to tell, about")

    def sentence(self) -> str:
        """The verdict, and what it rests on."""
        change = f"{100 * self.difference:+.1f} points ({100 * self.low:+.1f} to {100 * self.high:+.1f})"
        facts = (
            f"{100 * self.before:.1f} % before, {100 * self.after:.1f} % after, {change}, "
            f"{self.lost} lost and {self.gained} gained of {self.samples}"
        )
        if self.answer is None or self.margin is None:
            return facts
        if self.answer is Answer.CANNOT_TELL:
            many = f"more than {MANY:,}" if self.needed is None else f"about {self.needed:,}"
            return f"cannot tell, needs {many} samples: {facts}"
        worse = "worse by more than" if self.answer is Answer.WORSE else "not worse by more than"
        unit = "point" if self.margin == 0.01 else "points"
        return f"{worse} {100 * self.margin:g} {unit}: {facts}"


class Agreement(Strict):
    """How often the top-1 predictions before and after are the same. It is not accuracy."""

    samples: int
    share: float
    low: float = Field(description="lower end of the 95 % interval")
    high: float = Field(description="upper end of the 95 % interval")
    differing: tuple[int, ...] = Field(description="the first samples that differ, by index")

    def sentence(self) -> str:
        """The share with its interval."""
        return (
            f"top-1 agrees on {100 * self.share:.1f} % of {self.samples} samples "
            f"(95 % interval {100 * self.low:.1f} to {100 * self.high:.1f} %)"
        )


def top1(scores: ArrayLike) -> NDArray[np.int64]:
    """The class of each sample, ``(samples,)`` of scores ``(samples, ..., classes)``; -1 where a score is not finite.

    Where axes lie between, as in segmentation or speech, each position counts as a sample.
    """
    values = np.asarray(scores)
    rows = values.reshape(-1, values.shape[-1])
    return np.where(np.isfinite(rows).all(axis=1), rows.argmax(axis=1), NO_CLASS).astype(np.int64)


def agreement(before: ArrayLike, after: ArrayLike, *, kept: int = 10) -> Agreement:
    """Agreement of predictions, ``(samples,)`` each; the first ``kept`` samples that differ are listed."""
    first, second = _paired(before, after)
    same = (first == second) & (first != NO_CLASS)
    interval = wilson(int(same.sum()), len(same))
    differing = tuple(int(i) for i in np.flatnonzero(~same)[:kept])
    return Agreement(
        samples=len(same), share=interval.estimate, low=interval.low, high=interval.high, differing=differing
    )


def accuracy(labels: ArrayLike, before: ArrayLike, after: ArrayLike, *, margin: float | None = None) -> Accuracy:
    """Accuracy of predictions, ``(samples,)`` each, with a verdict where the ``margin`` of loss is given as a share."""
    truth, first = _paired(labels, before, names=("labels", "predictions"))
    truth, second = _paired(labels, after, names=("labels", "predictions"))
    right_before, right_after = (first == truth) & (first != NO_CLASS), (second == truth) & (second != NO_CLASS)
    n = len(truth)
    lost, gained = int((right_before & ~right_after).sum()), int((~right_before & right_after).sum())
    found = paired_difference(lost, gained, n)
    answer = None if margin is None else verdict(found, margin)
    cannot = answer is Answer.CANNOT_TELL and margin is not None
    return Accuracy(
        samples=n,
        before=float(right_before.mean()),
        after=float(right_after.mean()),
        difference=found.estimate,
        low=found.low,
        high=found.high,
        p_value=mcnemar(lost, gained),
        lost=lost,
        gained=gained,
        worst_class=_worst_class(truth, right_before, right_after),
        margin=margin,
        answer=answer,
        needed=needed_samples(found.estimate, (lost + gained) / n, margin or 0.0) if cannot else None,
    )


def verdict(difference: Interval, margin: float) -> Answer:
    """What the interval of a difference, after less before, says about a loss of ``margin``."""
    if margin < 0:
        raise UsageError(f"the allowed loss {margin:g} is negative", hint="Give it as a share, such as 0.01 for 1 %.")
    if difference.low > -margin:
        return Answer.NOT_WORSE
    return Answer.WORSE if difference.high < -margin else Answer.CANNOT_TELL


def paired_difference(lost: int, gained: int, samples: int) -> Interval:
    """The difference of two paired shares, after less before, with its score interval.

    Source: Tango, "Equivalence test and confidence interval for the difference in proportions for the paired-sample
    design", Statistics in Medicine 17, 1998, equations 10 to 14.
    """
    estimate = (gained - lost) / samples
    low = _score_bound(lost, gained, samples, below=True)
    high = _score_bound(lost, gained, samples, below=False)
    return Interval(estimate, min(low, estimate), max(high, estimate))


def mcnemar(lost: int, gained: int) -> float:
    """The exact two-sided p-value of so uneven flips, in integers however many they are.

    Source: McNemar, "Note on the sampling error of the difference between correlated proportions or percentages",
    1947, in its exact (binomial) form.
    """
    flips = lost + gained
    term = tail = 1
    for i in range(min(lost, gained)):
        term = term * (flips - i) // (i + 1)
        tail += term
    # A quotient of integers is right however large they are; floats would overflow at 1024 flips.
    p: float = 2 * tail / (1 << flips)
    return min(1.0, p)


def needed_samples(difference: float, discordant: float, margin: float) -> int | None:
    """Samples that would settle the question in 4 of 5 cases, were the shares to stay as they are; None for very many.

    ``discordant`` is the share of samples on which exactly one of the two models is right.
    Source: Connor, "Sample size for testing differences in proportions for the paired-sample design", Biometrics 43,
    1987, for the distance between the difference and the margin; without any flip, the score interval's own width.
    """
    distance = abs(difference + margin)
    if distance == 0:
        return None
    without_flips = Z**2 * (1 - distance) / distance
    if discordant > distance**2:
        spread = Z * math.sqrt(discordant) + POWER_Z * math.sqrt(discordant - distance**2)
        samples = max(without_flips, (spread / distance) ** 2)
    else:
        samples = without_flips
    return math.ceil(samples) if samples <= MANY else None


def _score_bound(lost: int, gained: int, samples: int, *, below: bool) -> float:
    """Where the score statistic crosses its quantile, by bisection: it falls as the difference grows."""
    target = Z if below else -Z
    low, high = -1.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if _score(lost, gained, samples, middle) > target:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _score(lost: int, gained: int, samples: int, difference: float) -> float:
    """Tango's statistic for a true difference, which is ``gained`` less ``lost``, in shares."""
    excess = gained - lost - samples * difference
    a = 2 * samples
    b = -gained - lost + (2 * samples - gained + lost) * difference
    c = -lost * difference * (1 - difference)
    share_lost = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
    variance = samples * (2 * share_lost + difference * (1 - difference))
    if variance <= 0:
        return 0.0 if excess == 0 else math.copysign(math.inf, excess)
    return excess / math.sqrt(variance)


def _worst_class(truth: NDArray[np.int64], before: NDArray[np.bool_], after: NDArray[np.bool_]) -> ClassChange | None:
    classes, index = np.unique(truth, return_inverse=True)
    right_before = np.bincount(index, weights=before)
    right_after = np.bincount(index, weights=after)
    worst = int(np.argmax(right_before - right_after))
    if right_before[worst] <= right_after[worst]:
        return None
    return ClassChange(
        label=int(classes[worst]),
        samples=int((index == worst).sum()),
        right_before=int(right_before[worst]),
        right_after=int(right_after[worst]),
    )


def _paired(
    first: ArrayLike, second: ArrayLike, *, names: Sequence[str] = ("predictions before", "predictions after")
) -> tuple[NDArray[Any], NDArray[Any]]:
    a, b = np.asarray(first).ravel(), np.asarray(second).ravel()
    if len(a) != len(b):
        raise UsageError(
            f"there are {len(a)} {names[0]} and {len(b)} {names[1]}", hint="Give one of each for every sample."
        )
    if not len(a):
        raise UsageError("there are no samples to compare on", hint="Give at least one.")
    return a, b
