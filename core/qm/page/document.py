"""The whole page, from its reports."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources

from qm.page.activation import activations
from qm.page.chart import charts
from qm.page.entry import Entry, entries, headline
from qm.page.layer import error_by_layer
from qm.page.markup import Html, details, join, paragraph, section, tag
from qm.page.operation import operations
from qm.page.overview import overview
from qm.page.pareto import pareto
from qm.page.section import again, decisions, environment, figures, findings, layers, samples
from qm.report import Report

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""Nothing is fetched and nothing is run, whatever a layer's name may hold."""


def document(reports: Sequence[Report]) -> str:
    """One HTML file of one report, or of several side by side."""
    chosen = entries(reports)
    title = chosen[0].name if len(chosen) == 1 else f"{len(chosen)} artifacts"
    body = _single(chosen[0]) if len(chosen) == 1 else _several(chosen)
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{title}: quantization report"),
        Html(f"<style>{_style()}</style>"),
    )
    return f'<!DOCTYPE html>\n<html lang="en">{head}<body><main>{body}</main></body></html>\n'


def _style() -> str:
    return resources.files("qm.page").joinpath("style.css").read_text(encoding="utf-8")


def _single(entry: Entry) -> Html:
    return join(_head(headline(entry), entry.report), section("At a glance", overview([entry])), _parts(entry))


def _head(words: str, report: Report) -> Html:
    state = ("ok", "accepted") if report.accepted else ("broken", "rejected")
    methods = ", ".join(stage.plugin for stage in report.recipe.stages)
    kept = "" if report.accepted else ", kept with .rejected at the end of its name,"
    from_what = f"{kept} from {report.model.path} by {methods}, {report.created[:10]}"
    return tag(
        "header",
        tag("h1", words),
        paragraph(
            tag("span", state[1], class_=f"badge {state[0]}"), " ", report.artifact.path, from_what, class_="note"
        ),
    )


def _parts(entry: Entry) -> Html:
    report = entry.report
    return join(
        section("Findings", findings(report)),
        section("Figures", figures(report)),
        section("Error by layer" if report.error_by_layer else "Layers", error_by_layer(entry), layers(entry)),
        charts(entry),
        section("Activations that lose most", activations(entry)),
        section("Time by operation", operations(entry)),
        section("Samples", samples(report)),
        section("Decisions", decisions(report)),
        section("Do it again", again(report)),
        section("Environment and hashes", environment(report)),
    )


def _several(chosen: Sequence[Entry]) -> Html:
    doubts = mismatches([e.report for e in chosen])
    return join(
        tag("header", tag("h1", f"{len(chosen)} artifacts side by side"), _verdicts(chosen)),
        (paragraph(tag("span", "warning", class_="badge warning"), " ", doubt) for doubt in doubts),
        section("At a glance", overview(chosen)),
        section("Pareto front", pareto(chosen)),
        (
            tag("section", tag("h2", e.name), paragraph(headline(e)), details("The whole report", _parts(e)))
            for e in chosen
        ),
    )


def _verdicts(chosen: Sequence[Entry]) -> Html:
    return tag("ol", (tag("li", headline(e)) for e in chosen))


def mismatches(reports: Sequence[Report]) -> list[str]:
    """Why these reports may not belong side by side."""
    found = []
    if len({r.model.sha256 for r in reports}) > 1:
        found.append("These artifacts are made from different originals, so shares of the original do not compare.")
    if len({r.data.fingerprint if r.data else "" for r in reports}) > 1:
        found.append("These artifacts were judged on different samples, so their accuracies do not compare.")
    elif len({r.data.judged if r.data else () for r in reports}) > 1:
        found.append("These artifacts were judged on different parts of one data set; compare accuracies with care.")
    if len({r.host.summary for r in reports if r.speed}) > 1:
        found.append("Speeds were measured on different machines, so they do not compare.")
    return found
