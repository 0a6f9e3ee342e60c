"""A report on the terminal: the verdict first, then what it rests on, then what to do next."""

from __future__ import annotations

from pathlib import Path

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from qm.cli.screen import show
from qm.report import Finding, Level, Quality, Report, report_path

MARKS = {
    Level.OK: Text("ok", style="green"),
    Level.NOTE: Text("note", style="cyan"),
    Level.WARNING: Text("warning", style="yellow"),
    Level.BROKEN: Text("broken", style="bold red"),
}


def print_report(report: Report) -> None:
    """Print the report in one screen."""
    parts: list[RenderableType] = [Text.assemble((report.artifact.path, "bold"), "  ", headline(report)), ""]
    parts.append(_findings(report.findings))
    if report.decisions:
        parts += ["", *(Text(f"· {decision}", style="dim") for decision in report.decisions)]
    if report.speed is not None:
        parts += ["", Text(report.speed.sentence())]
    parts.append("")
    parts += [Text.assemble(("next: ", "bold"), f.next) for f in report.warnings() if f.next]
    parts.append(Text(f"report: {report_path(Path(report.artifact.path))}", style="dim"))
    show(*parts)


def headline(report: Report) -> str:
    """The result in one sentence."""
    ratio = report.size.ratio
    smaller = f"{1 / ratio:.1f} times smaller" if ratio < 1 else f"{ratio:.2f} times the size"
    parts = [f"{smaller} ({size(report.size.before)} to {size(report.size.after)})"]
    if report.quality is not None:
        parts += quality_words(report.quality)
    return ", ".join(parts)


def quality_words(quality: Quality) -> list[str]:
    """Accuracy where there are labels, agreement and SQNR else."""
    accuracy, agreement = quality.accuracy, quality.agreement
    words = []
    if accuracy is not None:
        words.append(f"accuracy {accuracy.sentence()}")
    elif agreement is not None and not quality.synthetic:
        words.append(agreement.sentence())
    if quality.cosine is not None and accuracy is None:
        words.append(f"cosine {quality.cosine:.4f}")
    if quality.sqnr_db is not None:
        words.append(f"{quality.sqnr_db:.1f} dB" + (" on made-up inputs" if quality.synthetic else ""))
    return words


def size(nbytes: int) -> str:
    """Bytes for people, in units of 1,000."""
    for unit, step in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if nbytes >= step:
            return f"{nbytes / step:.3g} {unit}"
    return f"{nbytes} bytes"


def _findings(findings: tuple[Finding, ...]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        where = f" [{finding.layer}]" if finding.layer else ""
        table.add_row(MARKS[finding.level], finding.check, Text(finding.seen + where))
    return table
