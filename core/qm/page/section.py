"""The parts of a page that are words and tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qm.measurement import Latency, duration
from qm.page.entry import Entry, decibels, nbytes, signed
from qm.page.markup import Html, code, details, join, paragraph, table, tag
from qm.report import Finding, Level, Outcomes, Report, report_path

ORDER = (Level.BROKEN, Level.WARNING, Level.NOTE, Level.OK)
WORST_SAMPLES = 10
SHOWN_INDICES = 12


def figures(report: Report) -> Html:
    """What was measured, before and after, with intervals."""
    size, speed, quality = report.size, report.speed, report.quality
    rows: list[Sequence[str]] = [("size", nbytes(size.before), nbytes(size.after), f"{size.ratio:.2f} of the original")]
    if speed is not None:
        rows.append(("time of one run", _latency(speed.before), _latency(speed.after), _ratio(report)))
        rows.append(("time to load", *(duration(1000 * t.load_ms) for t in (speed.before, speed.after)), ""))
        rows.append(("peak memory", *(nbytes(t.peak_bytes) for t in (speed.before, speed.after)), ""))
    if quality is not None:
        n = f"{quality.n} made-up inputs" if quality.synthetic else f"{quality.n} samples"
        if (a := quality.accuracy) is not None:
            change = f"{signed(100 * a.difference)} points ({signed(100 * a.low)} to {signed(100 * a.high)})"
            rows.append(("top-1 accuracy", f"{100 * a.before:.1f} %", f"{100 * a.after:.1f} %", change))
            rows.append(("flips", "", f"{a.lost} lost, {a.gained} gained", f"p = {a.p_value:.2g} (exact McNemar)"))
        if (g := quality.agreement) is not None:
            share = f"{100 * g.share:.1f} % ({100 * g.low:.1f} to {100 * g.high:.1f})"
            rows.append(("top-1 agreement", "", share, f"on {n}"))
        if quality.sqnr_db is not None:
            rows.append(("SQNR of the outputs", "", f"{decibels(quality.sqnr_db)} dB", f"on {n}"))
        if quality.cosine is not None:
            rows.append(("cosine of the outputs", "", f"{quality.cosine:.4f}", f"on {n}"))
    spoken = [report.speed.sentence()] if report.speed is not None else []
    spoken += [quality.accuracy.sentence()] if quality is not None and quality.accuracy is not None else []
    return join(
        table(("", "original", "artifact", "change"), rows),
        (paragraph(_capital(s), ".", class_="note") for s in spoken),
    )


def _latency(latency: Latency) -> str:
    return f"{duration(latency.latency_us)} ({duration(latency.low_us)} to {duration(latency.high_us)})"


def _ratio(report: Report) -> str:
    speed = report.speed
    return "" if speed is None else f"{speed.ratio:.2f}x as fast ({speed.low:.2f} to {speed.high:.2f})"


def findings(report: Report) -> Html:
    """What the audit saw, the worst first, each with what to do next."""
    ranked = sorted(report.findings, key=lambda f: ORDER.index(f.level))
    return tag("ul", (_finding(f) for f in ranked), class_="findings") if ranked else Html()


def _finding(finding: Finding) -> Html:
    where = tag("span", finding.layer, class_="where") if finding.layer else Html()
    todo = tag("span", tag("b", "next: "), finding.next, class_="next") if finding.next else Html()
    badge = tag("span", finding.level.value, class_=f"badge {finding.level.value}")
    return tag("li", badge, tag("span", tag("b", finding.check), " ", finding.seen, where, todo))


def decisions(report: Report) -> Html:
    """What methods chose, and why."""
    chosen = tag("ul", (tag("li", d) for d in report.decisions)) if report.decisions else Html()
    return join(chosen, details("The route, step by step", code("\n".join(report.route))))


def layers(entry: Entry) -> Html:
    """Every layer: what it should be in, and what it is in."""
    report = entry.report
    errors = {e.layer: "identical" if e.sqnr_db is None else decibels(e.sqnr_db) for e in report.error_by_layer}
    rows = [
        (str(i + 1), name, asked, report.schemes.get(name, "not found"), errors.get(name, ""))
        for i, (name, asked) in enumerate(report.plan.items())
    ]
    if not rows:
        return Html()
    head = ("#", "layer", "asked", "is in", "SQNR, dB")
    return details(f"All {len(rows)} layers", table(head, rows, numbers=(0, 4)))


def samples(report: Report) -> Html:
    """Which samples were used for what, and which came out worst."""
    data, quality = report.data, report.quality
    outcomes = quality.outcomes if quality is not None else None
    parts = []
    if data is not None:
        words = f"{data.count} samples of {data.source}: {len(data.calibrated)} calibrated"
        words += f", {len(data.tried)} were tried on" if data.tried else ""
        parts.append(
            paragraph(words, f", {len(data.judged)} others judged. ", *(f"{_capital(n)}. " for n in data.notes))
        )
    elif quality is not None and quality.synthetic:
        parts.append(paragraph("No samples were given. Inputs were made up, so that nothing follows for accuracy."))
    return join(parts, _flips(outcomes) if outcomes else Html(), _worst(outcomes) if outcomes else Html())


def _flips(outcomes: Outcomes) -> Html:
    if not outcomes.label or not outcomes.before:
        return Html()
    columns = zip(outcomes.index, outcomes.label, outcomes.before, outcomes.after, strict=True)
    right = [(i, b == label, a == label) for i, label, b, a in columns]
    lost = [i for i, before, after in right if before and not after]
    gained = [i for i, before, after in right if after and not before]
    return paragraph(f"Lost: {_some(lost)}. Gained: {_some(gained)}.")


def _some(indices: Sequence[int]) -> str:
    more = f" and {len(indices) - SHOWN_INDICES} more" if len(indices) > SHOWN_INDICES else ""
    return (", ".join(map(str, indices[:SHOWN_INDICES])) or "none") + more


def _worst(outcomes: Outcomes) -> Html:
    known = [(v, i) for i, v in enumerate(outcomes.sqnr_db) if v is not None]
    if not known:
        return Html()

    def entry(column: Sequence[int], i: int) -> str:
        return str(column[i]) if column else ""

    rows = [
        (
            str(outcomes.index[i]),
            entry(outcomes.label, i),
            entry(outcomes.before, i),
            entry(outcomes.after, i),
            decibels(v),
        )
        for v, i in sorted(known)[:WORST_SAMPLES]
    ]
    head = ("sample", "label", "class before", "class after", "SQNR, dB")
    return details(f"The {len(rows)} samples that came out worst", table(head, rows, numbers=(0, 1, 2, 3, 4)))


def again(report: Report) -> Html:
    """The commands to do it again, and the recipe as it was run."""
    model, to = _quoted(report.model.path), _quoted(report.artifact.path)
    kept = Path(report.artifact.path + ("" if report.accepted else ".rejected"))
    data = f" --data {_quoted(report.data.source)}" if report.data is not None else ""
    return join(
        paragraph("As it was typed:"),
        code(report.command),
        paragraph("Or from the recipe below, once it is saved as recipe.toml; it holds what planners decided:"),
        code(f"qm quantize {model} --recipe recipe.toml{data} --to {to} --force"),
        paragraph("And this page again:"),
        code(f"qm report {_quoted(report_path(kept))} --force"),
        details("recipe.toml", code(report.recipe.text())),
    )


def _quoted(path: str | Path) -> str:
    import shlex

    return shlex.quote(str(path))


def environment(report: Report) -> Html:
    """Where it was run, and of which files the page speaks."""
    about = [("runtime", report.runtime), ("this machine", report.host.summary), ("target", _target(report))]
    about += [("created", report.created), *report.environment.items()]
    for name, file in (("original", report.model), ("artifact", report.artifact)):
        about.append((name, f"{file.path}, {file.format}, {file.nbytes:,} bytes, SHA-256 {file.sha256}"))
    if report.data is not None:
        about.append(("fingerprint of the data", report.data.fingerprint))
    return table(("", ""), [(key, value) for key, value in about if value], class_="plain")


def _target(report: Report) -> str:
    target = report.target
    return f"{target.name} (version {target.version}){': ' + target.summary if target.summary else ''}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
