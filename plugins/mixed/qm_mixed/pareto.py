"""The whole front of size and error, each point a recipe."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from qm.plugin import PlanJob, Recipe, Trial, UsageError
from qm_mixed.attempt import attempted
from qm_mixed.cost import Choice, Costs, decibel, measure, noise, say_counts, spoken
from qm_mixed.greedy import narrowest
from qm_mixed.programme import solve

Point = tuple[Choice, Trial]


def plan(job: PlanJob) -> Recipe:
    """The recipe at the front's bend; all its points are written where a folder is named.

    Raises:
        UsageError: there is nothing to choose, or the folder cannot be made.
    """
    folder = _folder(job.options.folder)
    costs = measure(job, job.options.ladder)
    points = front(_tried(job, costs))
    for number, (choice, trial) in enumerate(points, 1):
        place = ""
        if folder is not None:
            path = folder / f"front-{number:02}.toml"
            costs.recipe_of(choice).write(path, force=True)
            place = f", {path}"
        job.notes.say(f"point {number} of the front: {spoken(trial)}{place}")
    choice, trial = points[bend([t for _, t in points])]
    job.notes.say(f"taken, at the front's bend: {spoken(trial)}")
    say_counts(job, choice, costs.groups)
    return costs.recipe_of(choice)


def _folder(name: str) -> Path | None:
    if not name:
        return None
    path = Path(name)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise UsageError(f"the folder {name!r} cannot be made: {e.strerror}", hint="Name another: -o folder=.") from e
    return path


def _tried(job: PlanJob, costs: Costs) -> list[Point]:
    """The best plan for each of some sizes, really tried; what is learnt from each serves the next."""
    least, most = costs.nbytes(narrowest(costs)), max(costs.start.nbytes, costs.nbytes(narrowest(costs)))
    sizes = [float(n) for n in np.linspace(most, least, job.options.points)]
    made: dict[Choice, Trial] = {costs.started: costs.start}
    refused: list[Choice] = []
    for size in job.progress.track(sizes, "trying sizes", total=len(sizes)):
        limit = costs.part("nbytes"), size - costs.start.nbytes
        choice = solve(costs, costs.part("noise"), [limit], refused)
        if choice is None or choice in made:
            continue
        trial = attempted(job, costs.recipe_of(choice))
        if trial is None:
            refused.append(choice)
        else:
            made[choice] = trial
            costs = costs.learnt(choice, trial)
    return list(made.items())


def front(points: list[Point]) -> list[Point]:
    """The points that none beats in both size and error, the largest first."""
    made: list[Point] = []
    for point in sorted(points, key=lambda p: (p[1].nbytes, noise(p[1]))):
        if not made or noise(point[1]) < noise(made[-1][1]):
            made.append(point)
    return made[::-1]


def bend(trials: list[Trial]) -> int:
    """The place of the trial farthest from the line between the ends, in bytes and dB, both from 0 to 1.

    Source: Satopaa et al., "Finding a kneedle in a haystack", 2011, section III.
    """
    sizes = np.array([t.nbytes for t in trials], float)
    errors = np.array([min(decibel(noise(t)), 200.0) for t in trials])
    spread = [np.ptp(sizes) or 1.0, np.ptp(errors) or 1.0]
    return int(np.argmax((errors - errors.min()) / spread[1] - (sizes - sizes.min()) / spread[0]))
