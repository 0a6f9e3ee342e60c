"""What each layer costs, as a chart for the report."""

from __future__ import annotations

import math

from qm.plugin import Chart, Scheme
from qm_mixed.cost import Cost, Costs, decibel, noise


def picture(costs: Costs) -> Chart:
    """How the SQNR of the outputs changes where one layer alone gets another scheme, in dB; one series a scheme.

    The layers of a group, which move together, have the same values.
    """
    rows = [
        (layer.name, group.start, options)
        for group, options in zip(costs.groups, costs.by_group, strict=True)
        for layer in group.layers
    ]
    schemes = sorted({s for _, start, options in rows for s in options if s != start}, key=_width)
    return Chart(
        title="Sensitivity of the layers",
        across="layer, in the order in which they run",
        unit="change of SQNR, dB",
        names=tuple(name for name, _, _ in rows),
        series={
            str(s): tuple(
                _change(costs, options[s]) if s in options and s != start else None for _, start, options in rows
            )
            for s in schemes
        },
        reading=f"Each layer was tried alone in each scheme while the others stayed as they were, at "
        f"{decibel(noise(costs.start)):.1f} dB. Bars below zero lose: those layers need their bits. The highest above "
        "zero are the first to give more.",
    )


def _change(costs: Costs, cost: Cost) -> float | None:
    change = decibel(noise(costs.start) + cost.noise) - decibel(noise(costs.start))
    return round(change, 3) if math.isfinite(change) else None


def _width(scheme: Scheme) -> tuple[int, int, str]:
    return scheme.weight_bits, scheme.activation_bits, str(scheme)
