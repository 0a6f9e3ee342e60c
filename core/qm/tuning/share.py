"""Which samples calibrate, which are tried on, and which judge: the same for every method, and none for two things."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qm.data import Samples
from qm.errors import UsageError
from qm.split import JUDGED_SAMPLES, Split

CALIBRATION_SAMPLES = 128
TRIAL_SAMPLES = 256
LEAST = 8
ETA = 3
"""The best third of a rung goes on to the next, on three times as many samples."""


@dataclass(frozen=True, kw_only=True)
class Shares:
    """Indices of samples. ``training`` is what methods that train get: all that neither is tried on nor judges."""

    calibration: tuple[int, ...]
    training: tuple[int, ...]
    trial: tuple[int, ...]
    judging: tuple[int, ...]
    seed: int

    @property
    def rungs(self) -> int:
        """How many rungs there are; on the lowest, at least sixteen samples are tried on, where there are as many."""
        return 1 + sum(len(self.trial) // ETA**i >= 2 * LEAST for i in (1, 2))

    def calibrating(self, rung: int, *, trains: bool) -> tuple[int, ...]:
        """What calibrates on a rung; each rung's samples are among those of the next."""
        return self._part(self.training if trains else self.calibration, rung)

    def tried(self, rung: int) -> tuple[int, ...]:
        """What trials of a rung are judged on."""
        return self._part(self.trial, rung)

    def split(self, samples: Samples, *, trains: bool) -> Split:
        """The same as a split of the set opened."""
        judged = samples.subset(self.judging)
        return Split(
            whole=samples,
            calibration=samples.subset(self.training if trains else self.calibration),
            trial=samples.subset(self.trial),
            judging=judged,
            judged=judged,
            tried=self.trial,
        )

    def _part(self, indices: Sequence[int], rung: int) -> tuple[int, ...]:
        count = len(indices) // ETA ** (self.rungs - 1 - rung)
        order = np.random.default_rng(self.seed).permutation(len(indices))
        return tuple(sorted(int(indices[i]) for i in order[: max(min(LEAST, len(indices)), count)]))


def divide(samples: Samples, *, seed: int, wanted: int | None, trains: bool) -> Shares:
    """Draw the shares; those that calibrate are the ones that ``qm quantize`` takes for the same seed.

    ``trains`` says that a method will train, which leaves a fifth to judge on.

    Raises:
        UsageError: there are too few.
    """
    total = len(samples)
    if total < 4:
        raise UsageError(
            f"{total} samples cannot calibrate, be tried on and judge", hint="Give at least 4, better some hundreds."
        )
    count = wanted or max(1, min(CALIBRATION_SAMPLES, total // 2))
    if count > total - 2:
        raise UsageError(
            f"{count} samples to calibrate leave too few of {total} to try and to judge on",
            hint=f"Give more samples, or --samples {total // 2}.",
        )
    calibration, rest = samples.split(count, seed)
    trial, rest = rest.split(max(1, min(TRIAL_SAMPLES, len(rest) // 4)), seed)
    judged = rest.take(min(JUDGED_SAMPLES, -(-total // 5)) if trains else JUDGED_SAMPLES, seed)
    kept = {*trial.indices, *judged.indices}
    return Shares(
        calibration=calibration.indices,
        training=tuple(i for i in samples.indices if i not in kept),
        trial=trial.indices,
        judging=judged.indices,
        seed=seed,
    )
