"""The page of a report: what it says, and what it never does."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

import qm
import qm_toy
from qm import page
from qm.chart import Chart
from qm.errors import UsageError
from qm.report import Finding, Level, Report

pytest.importorskip("matplotlib", reason="the page needs matplotlib, which the extra [report] brings")

from qm.page.document import document, mismatches
from qm.page.entry import Point, entries, headline
from qm.page.figure import shortened, told_apart
from qm.page.markup import Html, join, table, tag
from qm.page.pareto import front

HOSTILE = "<script>alert('&')</script>$x_1$"


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A toy model quantized and judged on labelled samples."""
    folder = tmp_path_factory.mktemp("toy")
    data = qm_toy.make_data(folder / "data.npz", samples=40)
    return qm.quantize(qm_toy.make(folder / "net.toy"), ["toy.round"], data=data, to=folder / "net.w8a8.toy")


class Seen(HTMLParser):
    """Elements by name, with their attributes; void ones are known not to close."""

    VOID = frozenset({"meta", "br", "use", "path", "rect"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def renamed(report, name):
    """The same report, with another name for the layer ``first``."""
    return Report.model_validate_json(report.json_text().replace('"first"', f'"{name}"'))


def test_every_element_is_closed(report):
    assert Seen(document([report])).open == []


def test_nothing_is_fetched_and_nothing_is_run(report):
    seen = Seen(document([report, renamed(report, HOSTILE)]))
    names = {name for name, _ in seen.elements}
    assert not names & {"script", "link", "img", "iframe", "object", "embed", "base", "form"}
    links = [v for _, attrs in seen.elements for k, v in attrs.items() if k in ("src", "href", "xlink:href", "action")]
    assert [link for link in links if not str(link).startswith("#")] == []
    styles = [v for _, attrs in seen.elements for k, v in attrs.items() if k == "style"]
    assert [s for s in styles if re.search(r"url\((?!#)", str(s))] == []
    policy = next(attrs["content"] for name, attrs in seen.elements if attrs.get("http-equiv"))
    assert policy.startswith("default-src 'none'")


def test_layer_names_are_shown_as_they_are_and_never_as_markup(report):
    text = document([renamed(report, HOSTILE)])
    assert "<script" not in text
    assert HOSTILE in "".join(Seen(text).text)


def test_a_layer_name_with_dollar_signs_is_no_formula(report):
    chosen = renamed(report, "$\\\\frac{a}$")
    assert "mathdefault" not in document([chosen])


def test_no_two_elements_of_a_page_share_an_id(report):
    other = report.model_copy(update={"artifact": report.artifact.model_copy(update={"path": "other.toy"})})
    ids = [attrs["id"] for _, attrs in Seen(document([report, other])).elements if "id" in attrs]
    assert len(ids) == len(set(ids))


def test_colours_are_variables_so_that_light_and_dark_both_suit(report):
    text = document([report])
    svgs = "".join(re.findall(r"<svg.*?</svg>", text, re.DOTALL))
    assert set(re.findall(r"#[0-9a-f]{6}\b", svgs)) <= {"#000000"}
    assert "prefers-color-scheme: dark" in text
    used = set(re.findall(r"var\((--\w+)\)", text))
    assert [v for v in used if text.count(f"{v}:") != 2] == []


def test_the_same_report_gives_the_same_page(report):
    assert document([report]) == document([report])


def test_each_plot_is_drawn_for_wide_and_for_narrow(report):
    text = document([report])
    titles = re.findall(r"<svg[^>]*><title>(.*?)</title>", text)
    assert len(titles) == 2 * len(set(titles))
    assert {t.split(" of ")[0].split(":")[0] for t in titles} >= {"Size, speed and accuracy", "Error by layer"}


def test_a_report_without_data_says_that_nothing_was_judged(report):
    bare = report.model_copy(update={"quality": None, "data": None, "error_by_layer": (), "profile_after": None})
    assert headline(entries([bare])[0]).endswith("was not judged on real samples.")
    assert "<h2>Error by layer</h2>" not in document([bare])


def test_a_rejected_artifact_is_called_so_with_the_reason(report):
    broken = Finding(check="finite", level=Level.BROKEN, seen="an output has NaN")
    rejected = report.model_copy(update={"accepted": False, "findings": (*report.findings, broken)})
    assert headline(entries([rejected])[0]) == "net.w8a8.toy was rejected: an output has NaN."
    assert ".rejected.report.json" in document([rejected])


def test_the_worst_finding_comes_first(report):
    odd = Finding(check="odd", level=Level.WARNING, seen="strange", next="Look.")
    text = document([report.model_copy(update={"findings": (*report.findings, odd)})])
    assert text.index("strange") < text.index(report.findings[0].seen.replace("'", "'"))
    assert "<b>next: </b>Look." in text


def test_reports_of_different_models_are_told_apart(report):
    other = report.model_copy(update={"model": report.model.model_copy(update={"sha256": "0" * 64})})
    assert "different originals" in mismatches([report, other])[0]
    assert mismatches([report, report]) == []


def test_two_artifacts_of_one_name_are_counted(report):
    assert [e.name for e in entries([report, report])] == ["net.w8a8.toy (1)", "net.w8a8.toy (2)"]


def test_the_front_keeps_what_cannot_be_told_apart():
    small, large = Point.exact(-1, ""), Point.exact(-2, "")
    good, vague, bad = Point(5, 4, 6, ""), Point(4.5, 3, 6, ""), Point(1, 0, 2, "")
    assert front([(small, good), (large, vague)]) == [0, 1]
    assert front([(small, good), (large, bad)]) == [0]
    assert front([(small, bad), (large, good)]) == [0, 1]


def test_one_that_is_even_in_size_and_better_beyond_doubt_beats_the_other():
    size = Point.exact(-1, "")
    assert front([(size, Point(5, 4, 6, "")), (size, Point(1, 0, 2, ""))]) == [0]


def test_long_names_keep_their_ends():
    assert shortened("model/block_1/conv/kernel", 12) == "mod…v/kernel"
    assert shortened("short", 12) == "short"


def test_long_names_are_shown_without_the_words_that_all_begin_with():
    names = [f"encoder.layer.{i}.output.dense.matmul" for i in (3, 11)]
    assert told_apart(names, 30) == ["…3.output.dense.matmul", "…11.output.dense.matmul"]
    assert told_apart(["encoder.a", "encoder.b"], 30) == ["encoder.a", "encoder.b"]
    assert told_apart(["abc" * 20, "abd" * 20], 12) == ["abc…bcabcabc", "abd…bdabdabd"]


def test_text_is_escaped_once_and_markup_not_at_all():
    assert join("a < b", Html("<i>")) == "a &lt; b<i>"
    assert tag("p", "&", title='"') == '<p title="&quot;">&amp;</p>'
    assert "<td>&lt;b&gt;</td>" in table(("h",), [("<b>",)])


def test_a_page_is_not_overwritten_without_force(report, tmp_path):
    place = tmp_path / "p.html"
    page.write([report], place)
    with pytest.raises(UsageError, match="exists"):
        page.write([report], place)
    page.write([report], place, force=True)


def charted(report, *, names=("a", "b", HOSTILE), **series):
    chart = Chart(title="What it costs", across="layer", unit="dB", names=names, series=series, reading="Read this.")
    return report.model_copy(update={"charts": (chart,)})


def test_a_chart_is_drawn_with_a_panel_a_series_and_a_table_of_the_farthest_values(report):
    text = document([charted(report, w4=(-1.5, None, 0.25), w8=(0.5, -0.75, 0.125))])
    seen = "".join(Seen(text).text)
    assert "What it costs" in seen and "Read this." in seen
    assert all(word in seen for word in ("w4, dB", "w8, dB", "−1.50", "+0.25", "+0.50", "−0.75"))


def test_names_in_a_chart_are_no_markup(report):
    text = document([charted(report, w4=(1.0, 2.0, 3.0))])
    assert "<script" not in text
    Seen(text)


def test_a_long_chart_lists_the_farthest_and_keeps_the_rest_folded(report):
    values = tuple(float(i) for i in range(20))
    text = document([charted(report, names=tuple(f"layer{i}" for i in range(20)), w4=values)])
    shown = text[text.index("What it costs") :]
    assert shown.index(">layer19<") < shown.index("All 20") < shown.index(">layer0<")


def test_a_series_of_which_nothing_is_known_has_no_panel(report):
    text = document([charted(report, w4=(None, None, None), w8=(1.0, 0.0, -1.0))])
    assert "w8, dB" in text and "w4, dB" not in text
    assert "What it costs" not in document([charted(report, w4=(None, None, None))])


def test_a_chart_with_values_lacking_is_refused():
    with pytest.raises(ValueError, match="series 'w4' has 1 values for 2 names"):
        Chart(title="t", across="layer", unit="dB", names=("a", "b"), series={"w4": (1.0,)})
