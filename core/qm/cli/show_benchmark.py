"""A benchmark on the terminal: figures side by side, then the verdicts with what they rest on."""

from __future__ import annotations

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from qm.bench import BenchmarkReport
from qm.cli.screen import show, table
from qm.cli.show_contest import labelled
from qm.cli.show_report import size
from qm.measurement import Latency, duration
from qm.report import Outcomes, Quality

SHOWN = 5


def print_benchmark(report: BenchmarkReport) -> None:
    """Print the report."""
    title = report.artifact.path + (f" against {report.baseline.path}" if report.baseline else "")
    parts: list[RenderableType] = [Text(title, style="bold"), "", figures(report), ""]
    words = [*_verdicts(report), *_answers(report), *_worst(report), *_circumstances(report)]
    parts += [labelled(name, text) for name, text in words]
    show(*parts)


def figures(report: BenchmarkReport) -> Table:
    """What was measured, a column a model."""
    speed = report.speed
    before, after = (speed.before, speed.after) if speed else (None, report.latency)
    columns = ("before", "after", "ratio") if report.baseline else ("value",)
    made = table("", *columns, right=columns)

    def add(name: str, old: str, new: str, ratio: str = "") -> None:
        made.add_row(name, *((old, new, ratio) if report.baseline else (new,)))

    baseline = report.baseline
    add(
        "size",
        size(baseline.nbytes) if baseline else "",
        size(report.artifact.nbytes),
        f"{report.artifact.nbytes / baseline.nbytes:.2f}" if baseline else "",
    )
    if report.gzip_nbytes:
        old = report.baseline_gzip_nbytes
        add(
            "gzip", size(old) if old else "", size(report.gzip_nbytes), f"{report.gzip_nbytes / old:.2f}" if old else ""
        )
    if after is not None:
        names = [n for n in after.percentiles_us if before is None or n in before.percentiles_us]
        add("latency", _median(before), _median(after), f"{1 / speed.ratio:.2f}" if speed else "")
        add("  95 %", _bounds(before), _bounds(after), f"{1 / speed.high:.2f} to {1 / speed.low:.2f}" if speed else "")
        for name in names:
            if name != "p50":
                add(f"  {name}", _percentile(before, name), _percentile(after, name))
        add("load", _load(before), _load(after))
        add("memory", size(before.peak_bytes) if before else "", size(after.peak_bytes))
    return made


def _verdicts(report: BenchmarkReport) -> list[tuple[str, str]]:
    words = []
    if report.latency is not None:
        words.append(("speed", report.latency.sentence()))
    if report.speed is not None:
        words.append(("speed", report.speed.sentence()))
    if report.metric is not None:
        if report.baseline is None:
            words.append((report.metric.name, f"{report.metric.after:.4g} on {report.metric.samples} samples"))
        else:
            words.append((report.metric.name, report.metric.sentence()))
    if report.accuracy is not None:
        words.append(("accuracy", report.accuracy.sentence()))
    if report.quality is not None and report.quality.accuracy is not None:
        words.append(("accuracy", report.quality.accuracy.sentence()))
        words.append(("", f"McNemar's exact p {report.quality.accuracy.p_value:.2g}"))
    return words


def _answers(report: BenchmarkReport) -> list[tuple[str, str]]:
    quality = report.quality
    if quality is None:
        return []
    words = []
    if quality.agreement is not None and not quality.synthetic:
        words.append(quality.agreement.sentence())
    words.append(_closeness(quality))
    return [("answers", ", ".join(words))]


def _closeness(quality: Quality) -> str:
    parts = []
    if quality.cosine is not None:
        parts.append(f"cosine {quality.cosine:.4f}")
    parts.append("identical or not to be compared" if quality.sqnr_db is None else f"{quality.sqnr_db:.1f} dB SQNR")
    return ", ".join(parts) + (" on made-up inputs" if quality.synthetic else "")


def _worst(report: BenchmarkReport) -> list[tuple[str, str]]:
    quality = report.quality
    if quality is None or quality.synthetic:
        return []
    words = []
    if quality.accuracy is not None and (worst := quality.accuracy.worst_class) is not None:
        words.append(
            f"class {worst.label}, {worst.right_before} of {worst.samples} right before and {worst.right_after} after"
        )
    if (outcomes := quality.outcomes) is not None:
        words += _worst_samples(outcomes)
    return [("worst" if i == 0 else "", text) for i, text in enumerate(words)]


def _worst_samples(outcomes: Outcomes) -> list[str]:
    index, words = outcomes.index, []
    if found := outcomes.worst_by_sqnr(SHOWN):
        words.append("by SQNR: " + ", ".join(f"sample {index[i]} ({outcomes.sqnr_db[i]:.1f} dB)" for i in found))
    if found := outcomes.worst_by_loss(SHOWN):
        rise = {i: outcomes.loss_after[i] - outcomes.loss_before[i] for i in found}
        words.append("by loss: " + ", ".join(f"sample {index[i]} ({rise[i]:+.2g})" for i in found))
    if found := outcomes.worst_by_metric(SHOWN):
        fall = {i: outcomes.metric_after[i] - outcomes.metric_before[i] for i in found}
        words.append("by metric: " + ", ".join(f"sample {index[i]} ({fall[i]:+.2g})" for i in found))
    return words


def _circumstances(report: BenchmarkReport) -> list[tuple[str, str]]:
    return [("machine", report.cpu), *(("note", note) for note in report.notes)]


def _median(found: Latency | None) -> str:
    return duration(found.latency_us) if found else ""


def _bounds(found: Latency | None) -> str:
    return f"{duration(found.low_us)} to {duration(found.high_us)}" if found else ""


def _percentile(found: Latency | None, name: str) -> str:
    return duration(found.percentiles_us[name]) if found else ""


def _load(found: Latency | None) -> str:
    return duration(1e3 * found.load_ms) if found else ""
