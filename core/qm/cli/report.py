"""``qm report``."""

from __future__ import annotations

import argparse
from pathlib import Path

SUMMARY = "Show reports as one page to look at, which opens from disk; several of them side by side."


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.add_argument("reports", metavar="REPORT", nargs="+", help="NAME.report.json, or the artifact it lies beside")
    parser.add_argument("--to", metavar="FILE", type=Path, help="NAME.report.html; reports.html for several")
    parser.add_argument("--force", action="store_true", help="overwrite")
    parser.epilog = (
        "examples:\n"
        "  qm report net.w8a8.onnx.report.json\n"
        "  qm report net.w8a8.onnx net.w8d8.onnx --to both.html\n\n"
        "exit codes: 0 done, 2 usage"
    )


def run(args: argparse.Namespace) -> int:
    """Run the command; the exit code."""
    from qm import page
    from qm.cli.screen import show
    from qm.report import Report

    places = [_place(Path(name)) for name in args.reports]
    reports = [Report.read(place) for place in places]
    one = places[0].with_suffix(".html")
    to = args.to or (one if len(places) == 1 else Path("reports.html"))
    page.write(reports, to, force=args.force)
    show(f"page: {to}")
    return 0


def _place(path: Path) -> Path:
    """The report itself, where the artifact is named."""
    from qm.report import report_path

    return path if path.suffix == ".json" or not report_path(path).exists() else report_path(path)
