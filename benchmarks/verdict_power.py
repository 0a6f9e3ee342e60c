"""What does the verdict say of models whose true loss is known? Simulates paired outcomes, and counts the answers.

    python benchmarks/verdict_power.py [--draws 20000] [--margin 0.01] [--seed 0]

Each row is one true drop of accuracy, one number of samples and one share of discordant samples (right by exactly one
of the two models). "Not worse" is false where the true drop is the margin or more, "worse" where it is the margin or
less. Exit code 1 where "not worse" was said falsely in more than 5 % of the draws of any row.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter

import numpy as np

from qm.verdict import Answer, paired_difference, verdict

DROPS = (0.0, 0.005, 0.01, 0.02)
SAMPLES = (500, 2_000, 10_000)
DISCORDANT = (0.02, 0.05)
MOST_FALSE = 0.05


def main() -> int:
    """Print a row for each case, then the worst rates of false answers."""
    options = _options()
    rng = np.random.default_rng(options.seed)
    worst = {Answer.NOT_WORSE: 0.0, Answer.WORSE: 0.0}
    print(f"margin {100 * options.margin:g} points, {options.draws:,} draws a row")
    print("true drop  discordant  samples  " + "  ".join(f"{a:>11}" for a in Answer))
    for samples in SAMPLES:
        for discordant in DISCORDANT:
            for drop in DROPS:
                said = rates(drop, discordant, samples, margin=options.margin, draws=options.draws, rng=rng)
                shown = "  ".join(f"{said[a]:>11.1%}" for a in Answer)
                print(f"{100 * drop:>9g}  {discordant:>10.0%}  {samples:>7,}  {shown}")
                if drop >= options.margin:
                    worst[Answer.NOT_WORSE] = max(worst[Answer.NOT_WORSE], said[Answer.NOT_WORSE])
                if drop <= options.margin:
                    worst[Answer.WORSE] = max(worst[Answer.WORSE], said[Answer.WORSE])
    print(f"'not worse' said falsely: at most {worst[Answer.NOT_WORSE]:.1%} (goal: at most {MOST_FALSE:.0%})")
    print(f"'worse' said falsely: at most {worst[Answer.WORSE]:.1%}")
    return int(worst[Answer.NOT_WORSE] > MOST_FALSE)


def rates(
    drop: float, discordant: float, samples: int, *, margin: float, draws: int, rng: np.random.Generator
) -> dict[Answer, float]:
    """How often each answer was given: all that it depends on is how many samples were lost and how many gained."""
    lost, gained = (discordant + drop) / 2, (discordant - drop) / 2
    drawn = rng.multinomial(samples, [lost, gained, 1 - lost - gained], size=draws)
    flips, times = np.unique(drawn[:, :2], axis=0, return_counts=True)
    said: Counter[Answer] = Counter()
    for (b, c), count in zip(flips.tolist(), times.tolist(), strict=True):
        said[verdict(paired_difference(b, c, samples), margin)] += count
    return {answer: said[answer] / draws for answer in Answer}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=20_000, help="simulated data sets a row")
    parser.add_argument("--margin", type=float, default=0.01, help="the loss that is allowed, as a share")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
