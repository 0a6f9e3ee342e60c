"""The choice of one scheme a group, as an integer programme."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp

from qm.plugin import PluginError
from qm_mixed.cost import Choice, Costs, Measure

Row = NDArray[np.float64]

SECONDS = 10.0


def solve(
    costs: Costs, goal: Measure, limits: Sequence[tuple[Measure, float]], without: Sequence[Choice] = ()
) -> Choice | None:
    """The choice of the least sum of ``goal`` whose limited sums stay within their limits; None where there is none.

    ``without`` are choices that are not wanted again. The solver is HiGHS: Huangfu and Hall, "Parallelizing the dual
    revised simplex method", 2018.

    Raises:
        PluginError: the solver gave up.
    """
    items = [(i, s) for i, options in enumerate(costs.by_group) for s in options]
    place = {item: n for n, item in enumerate(items)}
    one_each = np.zeros((len(costs.by_group), len(items)))
    for (i, _), n in place.items():
        one_each[i, n] = 1
    rows: list[tuple[Row, float, float]] = [(row, 1.0, 1.0) for row in one_each]
    rows += [(_scaled(np.array([measure(i, s) for i, s in items]), limit)) for measure, limit in limits]
    for choice in without:
        cut = np.zeros(len(items))
        cut[[place[i, s] for i, s in enumerate(choice)]] = 1
        rows.append((cut, -np.inf, len(choice) - 1.0))
    weights = np.array([goal(i, s) for i, s in items])
    widest = float(np.abs(weights).max()) or 1.0
    found = milp(
        weights / widest,
        constraints=LinearConstraint(
            np.array([r for r, _, _ in rows]), [a for _, a, _ in rows], [b for _, _, b in rows]
        ),
        integrality=np.ones(len(items)),
        bounds=Bounds(0, 1),
        options={"time_limit": SECONDS, "mip_rel_gap": 1e-6},
    )
    if found.x is None:
        if found.status == 2:  # Infeasible.
            return None
        raise PluginError("mixed", f"the solver gave up: {found.message}")
    chosen = {i: s for (i, s), taken in zip(items, found.x, strict=True) if taken > 0.5}
    return tuple(chosen[i] for i in range(len(costs.by_group)))


def _scaled(row: Row, limit: float) -> tuple[Row, float, float]:
    """A limit in units of its largest part: bytes and powers differ by many orders, tolerances do not."""
    widest = float(np.abs(row).max()) or 1.0
    return row / widest, -np.inf, limit / widest
