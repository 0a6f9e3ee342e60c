"""What is wanted, and what the samples that judge say to it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from qm.errors import UsageError
from qm.strict import Strict
from qm.tuning.job import Measured
from qm.verdict import MANY, Answer, needed_samples, paired_difference, verdict


class Verdict(Strict):
    """What can be said of one model against the goal, and by how much it misses; None where it does not.

    ``missed_by`` is in shares of answers, or in dB. ``likely`` says whether the estimate alone keeps the goal.
    """

    answer: Answer
    sentence: str
    likely: bool
    missed_by: float | None = None
    needed: int | None = None


@dataclass(frozen=True, kw_only=True)
class Goal:
    """The loss of accuracy that is allowed as a share, or the least SQNR where that is told."""

    max_drop: float = 0.01
    min_sqnr_db: float | None = None

    def __str__(self) -> str:
        if self.min_sqnr_db is not None:
            return f"at least {self.min_sqnr_db:g} dB"
        return f"not worse by more than {100 * self.max_drop:g} {'point' if self.max_drop == 0.01 else 'points'}"

    def check(self, measured: Measured) -> None:
        """Raise UsageError where the goal cannot be held against such outputs."""
        if self.min_sqnr_db is None and measured.lost is None:
            raise UsageError(
                "the model's outputs are no scores of classes, so that no drop of accuracy can be told",
                hint="Set the goal in decibels: --min-sqnr 30dB.",
            )

    def promise(self, measured: Measured) -> tuple[float, float]:
        """How good it looks, the lower the better: the share lost, then the noise."""
        return (0.0 if self.min_sqnr_db is not None else measured.drop, -measured.sqnr_db)

    def judge(self, measured: Measured) -> Verdict:
        """The verdict, of what was measured on the samples that judge."""
        if self.min_sqnr_db is not None:
            return self._by_sqnr(measured, self.min_sqnr_db)
        lost, gained, samples = measured.lost or 0, measured.gained or 0, measured.samples
        found = paired_difference(lost, gained, samples)
        answer = verdict(found, self.max_drop)
        cannot = answer is Answer.CANNOT_TELL
        needed = needed_samples(found.estimate, (lost + gained) / samples, self.max_drop) if cannot else None
        change = f"{100 * found.estimate:+.1f} points ({100 * found.low:+.1f} to {100 * found.high:+.1f})"
        facts = (
            f"{change}, {lost} lost and {gained} gained of {samples}"
            if measured.labelled
            else f"{lost} of {samples} answers changed, at worst {change}"
        )
        many = f"more than {MANY:,}" if needed is None else f"about {needed:,}"
        return Verdict(
            answer=answer,
            sentence=f"{answer}, needs {many} samples: {facts}" if cannot else f"{answer}: {facts}",
            missed_by=None if answer is Answer.NOT_WORSE else -self.max_drop - found.low,
            needed=needed,
            likely=found.estimate >= -self.max_drop,
        )

    def _by_sqnr(self, measured: Measured, least: float) -> Verdict:
        met = measured.sqnr_db >= least
        told = "identical outputs" if math.isinf(measured.sqnr_db) and met else f"{measured.sqnr_db:.1f} dB"
        return Verdict(
            answer=Answer.NOT_WORSE if met else Answer.WORSE,
            sentence=f"{told} on {measured.samples} samples",
            missed_by=None if met else least - measured.sqnr_db,
            likely=met,
        )
