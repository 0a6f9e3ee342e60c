"""The league's page: a table a model between markers, and one picture."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

Row = Mapping[str, Any]

HEADER = (
    "| tool | recipe | {accuracy} | SQNR, dB | speed | size | integers | quantizing |",
    "| --- | --- | --- | --- | --- | --- | --- | --- |",
)

ACCURACY = {"labels": "top-1 against float, points", "lines": "lines read as float reads them"}
"""The column of accuracy by what it is judged by."""

COLUMNS = 2


def write(file: Path, rows: Mapping[str, Sequence[Row]]) -> None:
    """Put each model's table between its markers, ``<!-- NAME -->`` and ``<!-- end -->``, and draw the picture.

    Raises:
        ValueError: the page has no markers for a model.
    """
    text = file.read_text(encoding="utf-8")
    for name, found in rows.items():
        block = re.compile(rf"(<!-- {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
        place = block.search(text)
        if place is None:
            raise ValueError(f"{file.name} has no place for {name!r}; write <!-- {name} --> and <!-- end -->")
        text = f"{text[: place.end(1)]}{tables(found)}\n{text[place.start(2) :]}"
    picture(file.with_suffix(".png"), rows)
    file.write_text(text, encoding="utf-8")


def tables(rows: Sequence[Row]) -> str:
    """A table for each set of kernels, the best SQNR first, then who failed."""
    done = [row for row in rows if not row["failed"]]
    parts = [_table(done, kernels) for kernels in dict.fromkeys(k for row in done for k in row["judged"])]
    failed = [f"| {tool(row)} | {row['recipe']} | {row['failed']} |" for row in rows if row["failed"]]
    if failed:
        parts.append("\n".join(["| tool | recipe | why there is no figure |", "| --- | --- | --- |", *failed]) + "\n")
    return "\n".join(parts)


def _table(rows: Sequence[Row], kernels: str) -> str:
    known = [(row, row["judged"][kernels]) for row in rows if kernels in row["judged"]]
    known.sort(key=_worst_first, reverse=True)
    one = known[0][1]
    by = one.get("judged_by", "labels")
    judges = f"{one['samples']:,} lines" if by == "lines" else f"float {_percent(one)} of {one['samples']:,} images"
    heading = f"{title(kernels, one)}: {judges}."
    header = [text.format(accuracy=ACCURACY[by]) for text in HEADER]
    floors = [100 * judged["speed"]["noise_floor"] for _, judged in known]
    noise = f"Noise floor by wall time: {min(floors):.1f} % at the best row, {median(floors):.1f} % at the median one."
    return "\n".join([heading, "", *header, *(line(row, judged) for row, judged in known), "", noise, ""])


def _percent(judged: Mapping[str, Any]) -> str:
    return f"{100 * judged['accuracy']['before']:.1f} %"


def _worst_first(known: tuple[Row, Mapping[str, Any]]) -> float:
    return float(known[1]["sqnr_db"]["estimate"])


def title(kernels: str, judged: Mapping[str, Any]) -> str:
    """What ran the files."""
    where = "its AVX2 kernels alone" if kernels == "avx2" else f"all kernels of this CPU ({judged['cpu']})"
    engine = " ".join(judged["runtime"].split()[:2])  # What follows is of one file, such as what a delegate took.
    return f"{engine}, one thread, {where}"


def tool(row: Row) -> str:
    """The tool with its version."""
    return f"{row['tool']} {row['version']}" if "version" in row else str(row["tool"])


def line(row: Row, judged: Mapping[str, Any]) -> str:
    """One row of a table."""
    q, cost = judged["sqnr_db"], row["cost"]
    speed = judged["speed"]["cpu"] or judged["speed"]
    cells = (
        tool(row),
        row["recipe"],
        _accuracy(judged),
        f"{q['estimate']:.1f} ({q['low']:.1f} to {q['high']:.1f})",
        f"{speed['ratio']:.2f} ({speed['low']:.2f} to {speed['high']:.2f})",
        f"{judged['nbytes'] / 1000:,.0f} kB",
        _integers(judged["layers"]),
        f"{cost['cpu_seconds']:.0f} s, {cost['peak_bytes'] / 1e6:,.0f} MB",
    )
    return "| " + " | ".join(cells) + " |"


def _accuracy(judged: Mapping[str, Any]) -> str:
    a = judged["accuracy"]
    if judged.get("judged_by") == "lines":
        low, high = (100 * min(1 + a[end], 1) for end in ("low", "high"))
        return f"{100 * a['after']:.0f} % ({low:.0f} to {high:.0f})"
    return f"{100 * a['difference']:+.1f} ({100 * a['low']:+.1f} to {100 * a['high']:+.1f})"


def _integers(layers: Mapping[str, Any] | None) -> str:
    if layers is None:
        return "the file does not say"
    schemes = ", ".join(f"{count} {scheme}" for scheme, count in layers["schemes"].items())
    return f"{100 * layers['integer_share']:.0f} % ({schemes})"


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Positions of the points that no other beats in both coordinates, by the first; larger is better."""
    order = sorted(range(len(points)), key=lambda i: (-points[i][0], -points[i][1]))
    kept: list[int] = []
    for i in order:
        if not kept or points[i][1] > points[kept[-1]][1]:
            kept.append(i)
    return kept


def picture(file: Path, rows: Mapping[str, Sequence[Row]]) -> None:
    """SQNR over speed, a panel for each model and set of kernels, with 95 % intervals and the front of both."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    panels = [
        (name, kernels)
        for name, found in rows.items()
        for kernels in dict.fromkeys(k for row in found if not row["failed"] for k in row["judged"])
    ]
    names = list(dict.fromkeys(row["tool"] for found in rows.values() for row in found if not row["failed"]))
    colours = {name: plt.get_cmap("tab10")(i) for i, name in enumerate(names)}
    lines = -(-len(panels) // COLUMNS)
    figure, axes = plt.subplots(lines, COLUMNS, figsize=(4.4 * COLUMNS, 4 * lines + 0.5), squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.remove()
    for axis, (name, kernels) in zip(axes.flat, panels, strict=False):
        _panel(axis, [row for row in rows[name] if kernels in row["judged"]], kernels, colours)
    handles = [plt.Line2D([], [], color=colours[n], marker="o", linestyle="", label=n) for n in names]
    figure.legend(handles=handles, loc="lower center", ncols=5, frameon=False)
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    figure.savefig(file, dpi=100, metadata={"Software": None})
    plt.close(figure)


def _panel(axis: Any, rows: Sequence[Row], kernels: str, colours: Mapping[str, Any]) -> None:
    points = []
    for row in rows:
        judged = row["judged"][kernels]
        speed, sqnr = judged["speed"]["cpu"] or judged["speed"], judged["sqnr_db"]
        points.append((speed["ratio"], sqnr["estimate"]))
        axis.errorbar(
            *([v] for v in points[-1]),
            xerr=[[speed["ratio"] - speed["low"]], [speed["high"] - speed["ratio"]]],
            yerr=[[sqnr["estimate"] - sqnr["low"]], [sqnr["high"] - sqnr["estimate"]]],
            fmt="o" if row["tool"] != "qm" else "s",
            color=colours[row["tool"]],
            elinewidth=1,
        )
    best = [points[i] for i in front(points)]
    axis.step(*zip(*best, strict=True), where="post", color="0.6", linewidth=1, zorder=0)
    axis.axvline(1, color="0.85", linewidth=1, zorder=0)
    where = "AVX2 kernels alone" if kernels == "avx2" else rows[0]["judged"][kernels]["cpu"]
    axis.set_title(f"{rows[0]['subject']}\n{where}", fontsize=10)
    axis.set_xlabel("speed against float")
    axis.set_ylabel("SQNR, dB")
