"""Where the time goes, in the original and in the artifact."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from matplotlib.figure import Figure

from qm.measurement import duration
from qm.page.entry import Entry
from qm.page.figure import AFTER, BEFORE, GRID, INK, WIDE, place, plot, told_apart
from qm.page.markup import Html, details, join, paragraph, table
from qm.report import Profile

KINDS = 9
LAYERS = 12
ROW = 34
OTHER = "all others"
Rows = Sequence[tuple[str, float | None, float | None]]


def operations(entry: Entry) -> Html:
    """Time by kind of operation and by layer; nothing where the runtime does not tell."""
    before, after = entry.report.profile_before, entry.report.profile_after
    if after is None:
        return Html()
    words = f"One profile on one thread: {duration(after.total_us)} in all"
    words += f", {duration(before.total_us)} in the original" if before is not None else ""
    key = [*([("before", "the original")] if before is not None else []), ("after", entry.name)]
    kinds = _rows(_by_kind(before), _by_kind(after), KINDS)
    layers = [row for row in _rows(_by_layer(before), _by_layer(after), LAYERS) if row[0] != OTHER]
    return join(
        paragraph(words, ". It has no interval: read shares from it, and speed from the benchmark.", class_="note"),
        _bars("By kind of operation", entry, kinds, key),
        _bars("The slowest layers", entry, layers, key) if layers else Html(),
        _slowest(after),
    )


def _by_kind(profile: Profile | None) -> dict[str, float]:
    spent: dict[str, float] = {}
    for op in profile.operations if profile is not None else ():
        spent[op.kind] = spent.get(op.kind, 0.0) + op.latency_us
    if profile is not None and profile.rest_us:
        spent[OTHER] = profile.rest_us
    return spent


def _by_layer(profile: Profile | None) -> dict[str, float]:
    spent: dict[str, float] = {}
    for op in profile.operations if profile is not None else ():
        if op.layer:
            spent[op.layer] = spent.get(op.layer, 0.0) + op.latency_us
    return spent


def _rows(first: Mapping[str, float], second: Mapping[str, float], most: int) -> Rows:
    """Names with their times before and after, the slowest first, the rest of a long list together."""
    names = sorted({*first, *second} - {OTHER}, key=lambda n: -max(first.get(n, 0.0), second.get(n, 0.0)))
    rows: list[tuple[str, float | None, float | None]] = [(n, first.get(n), second.get(n)) for n in names[:most]]
    rest = [*names[most:], OTHER]
    others = [sum(times.get(n, 0.0) for n in rest) or None for times in (first, second)]
    return [*rows, (OTHER, others[0], others[1])] if any(others) else rows


def _bars(title: str, entry: Entry, rows: Rows, key: Sequence[tuple[str, str]]) -> Html:
    longest = max((v for _, *times in rows for v in times if v is not None), default=1.0)

    def draw(figure: Figure, width: int) -> None:
        names = told_apart([name for name, _, _ in rows], 34 if width == WIDE else 16)
        left = 14 + 7 * max(map(len, names))
        axes = place(figure, left, 26, width - left - 76, ROW * len(rows))
        for i, (_, before, after) in enumerate(rows):
            apart = 0.19 if before is not None and after is not None else 0.0
            for value, colour, shift in ((before, BEFORE, -apart), (after, AFTER, apart)):
                if value is not None:
                    axes.barh(i + shift, value, height=0.34, color=colour)
                    axes.text(value + 0.01 * longest, i + shift, duration(value), va="center", fontsize=10.5)
        axes.set_yticks(range(len(rows)), names)
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(0, longest)
        axes.set_xticks([])
        axes.spines["bottom"].set_visible(False)
        axes.spines["left"].set_color(GRID)
        axes.set_title(title, pad=8)

    return plot(f"{title}: time in {entry.name}", draw, _height(len(rows)), key=key)


def _height(rows: int) -> Callable[[int], int]:
    return lambda _: 34 + ROW * rows


def _slowest(profile: Profile) -> Html:
    kinds = {True: "integers", False: "floats", None: ""}
    slow = sorted(profile.operations, key=lambda op: -op.latency_us)[:LAYERS]
    rows = [
        (
            op.name,
            op.kind,
            op.layer,
            kinds[op.integer],
            duration(op.latency_us),
            f"{100 * op.latency_us / profile.total_us:.1f}",
        )
        for op in slow
    ]
    return details(
        f"The {len(rows)} slowest operations of the artifact",
        table(("operation", "kind", "layer", "multiplies", "time", "% of all"), rows, numbers=(4, 5)),
    )
