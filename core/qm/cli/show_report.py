"""A report on the terminal: the verdict first, then what it rests on, then what to do next."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from qm.report import Finding, Level, Quality, Report, report_path

MARKS = {
    Level.OK: Text("ok", style="green"),
    Level.NOTE: Text("note", style="cyan"),
    Level.WARNING: Text("warning", style="yellow"),
    Level.BROKEN: Text("broken", style="bold red"),
}


def print_report(report: Report, console: Console | None = None) -> None:
    """Print the report in one screen."""
    console = console or Console(highlight=False, soft_wrap=False)
    console.print(Text(f"{report.artifact.path}", style="bold"), Text(headline(report)))
    console.print()
    console.print(_findings(report.findings))
    for decision in report.decisions:
        console.print(Text("  · " + decision, style="dim"))
    if report.speed is not None:
        console.print()
        console.print(Text(report.speed.sentence()))
    console.print()
    for finding in report.warnings():
        if finding.next:
            console.print(Text("next: ", style="bold") + Text(finding.next))
    place = report_path_text(report)
    console.print(Text(f"report: {place}", style="dim"))


def report_path_text(report: Report) -> str:
    """Where the report lies, as it is printed."""
    from pathlib import Path

    return str(report_path(Path(report.artifact.path)))


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
    table.add_column()
    for finding in findings:
        where = f" [{finding.layer}]" if finding.layer else ""
        table.add_row(MARKS[finding.level], finding.check, Text(finding.seen + where))
    return table
