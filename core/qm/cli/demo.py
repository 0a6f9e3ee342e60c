"""``qm demo``: a small real model, three methods, one table."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.text import Text

    from qm.measurement import Ratio
    from qm.report import Quality, Report

SUMMARY = "Quantize a small model three ways, offline, in under a minute, and compare the results with the original."

METHODS = ("onnx.ptq", "onnx.dynamic", "onnx.fp16")
TIME_S = 8.0
MARGIN = 0.01
"""The loss of accuracy, as a share, that the verdict is held against."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.add_argument("--to", metavar="DIR", type=Path, help="folder for the files; a new temporary one by default")
    parser.add_argument("--force", action="store_true", help="overwrite what an earlier demo wrote there")


def run(args: argparse.Namespace) -> int:
    """Quantize, benchmark, tell."""
    from qm.api import quantize
    from qm.progress import Bars

    _check_ready()
    folder = _folder(args.to)
    model, data = (_copied(name, folder, force=args.force) for name in ("digits.onnx", "digits.npz"))
    _introduce(model, data)
    reports = [
        quantize(model, [m], data=data, force=args.force, benchmark=True, time_s=TIME_S, progress=Bars())
        for m in METHODS
    ]
    _conclude(reports, folder)
    return 0


def _check_ready() -> None:
    """Raise NotReady before anything is written, where a method lacks its packages."""
    from qm.catalog import Catalog
    from qm.plugin import Quantizer

    catalog = Catalog()
    for name in METHODS:
        catalog.find(name, Quantizer).check_ready()


def _folder(asked: Path | None) -> Path:
    import tempfile

    from qm.errors import UsageError
    from qm.file import disk_errors

    if asked is None:
        return Path(tempfile.mkdtemp(prefix="qm-demo-"))
    if asked.exists() and not asked.is_dir():
        raise UsageError(f"{str(asked)!r} is a file", hint="Name a folder with --to.")
    with disk_errors(asked):
        asked.mkdir(parents=True, exist_ok=True)
    return asked


def _copied(name: str, folder: Path, *, force: bool) -> Path:
    from qm.file import written

    with written(folder / name, force=force) as temporary:
        temporary.write_bytes(resources.files("qm.demo").joinpath(name).read_bytes())
    return folder / name


def _introduce(model: Path, data: Path) -> None:
    from qm.cli.screen import show

    show(
        f"A convolutional network reads handwritten digits. It is {model}, its images are in {data}.",
        f"Each of {', '.join(METHODS)} is run on it, audited, and timed against it. This takes less than a minute.",
        "",
    )


def _conclude(reports: Sequence[Report], folder: Path) -> None:
    from qm.cli.screen import show, table

    rows = table("method", "size", "ratio", "accuracy\n%", "verdict", "speed\nratio", "SQNR\ndB")
    for column, justify in ((1, "right"), (2, "right"), (6, "right")):
        rows.columns[column].justify = justify  # type: ignore[assignment]
    rows.padding = (0, 1, 0, 0)
    quality = reports[0].quality
    before = quality.accuracy.before if quality is not None and quality.accuracy is not None else None
    accuracy = "" if before is None else f"{before:.1%}".rstrip("%")
    rows.add_row("float", _kilobytes(reports[0].size.before), "1.00", accuracy, "", "1.00", "")
    for method, report in zip(METHODS, reports, strict=True):
        rows.add_row(
            method,
            _kilobytes(report.size.after),
            f"{report.size.ratio:.2f}",
            *_quality_cells(report.quality),
            _speed_cell(report.speed),
            _sqnr(report.quality),
        )
    show(rows, "", *_legend(reports), "", *_farewell(folder, reports))


def _kilobytes(nbytes: int) -> str:
    return f"{nbytes / 1000:.0f} kB"


def _quality_cells(quality: Quality | None) -> tuple[str, Text | str]:
    """Accuracy with its change, and the verdict."""
    from rich.text import Text

    from qm.interval import Interval
    from qm.verdict import Answer, verdict

    if quality is None or quality.accuracy is None:
        return "?", ""
    found = quality.accuracy
    answer = verdict(Interval(found.difference, found.low, found.high), MARGIN)
    style = {Answer.NOT_WORSE: "green", Answer.WORSE: "red", Answer.CANNOT_TELL: "yellow"}[answer]
    return f"{100 * found.after:.1f} ({100 * found.difference:+.1f})", Text(str(answer), style=style)


def _speed_cell(speed: Ratio | None) -> Text | str:
    from rich.text import Text

    if speed is None:
        return "?"
    style = {"faster": "green", "slower": "red", "cannot tell": "yellow"}[speed.answer]
    return Text(f"{speed.ratio:.2f} ({speed.low:.2f}-{speed.high:.2f})", style=style)


def _sqnr(quality: Quality | None) -> str:
    return "?" if quality is None or quality.sqnr_db is None else f"{quality.sqnr_db:.1f}"


def _legend(reports: Sequence[Report]) -> list[str]:
    """What the columns mean, with how they came about."""
    from qm.measurement import circumstances

    quality, speed = reports[0].quality, reports[0].speed
    samples = f"on {quality.n} images that took no part in calibration" if quality else "on no images"
    lines = [
        f"Accuracy is judged {samples}; the verdict is against a loss of {100 * MARGIN:g} point.",
        "SQNR is how far the error of the outputs lies below the outputs themselves.",
    ]
    if speed is not None:
        how = circumstances(speed.after)
        lines.insert(1, f"Speed is float's time over this one's, with its 95 % interval: above 1 is faster ({how}).")
    return lines


def _farewell(folder: Path, reports: Sequence[Report]) -> list[str]:
    first = shlex.quote(reports[0].artifact.path)
    return [
        f"The models and a report on each are in {folder}. Look into one:",
        f"  qm inspect {first}",
        "Now your own model, with a few of its inputs:",
        "  qm quantize MODEL.onnx -p onnx.ptq --data SAMPLES.npz",
    ]
