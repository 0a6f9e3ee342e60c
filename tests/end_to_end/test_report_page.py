"""The page in a real browser, as ``qm quantize`` and ``qm report`` leave it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("matplotlib", reason="the page needs matplotlib, which the extra [report] brings")

CHROMIUM = shutil.which("chromium")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # What a page asks for is seen in the log; nothing needs to leave the machine for that.
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)
ASKED = re.compile(r'SiteForCookies: \{site=file://[^"]*",(?:"upload_id":"[^"]*",)?"url":"([^"]*)"')
"""An address in the browser's log that a page from disk asked for; the browser has errands of its own."""

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not on the PATH")


@pytest.fixture
def opened(tmp_path):
    """Open a page from disk: the document as the browser understood it, and what other addresses it asked for."""

    def opened(page: Path) -> tuple[str, list[str]]:
        log = tmp_path / "net.json"
        profile = tmp_path / "profile"
        command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", f"--log-net-log={log}", "--dump-dom"]
        done = subprocess.run(
            [*command, page.absolute().as_uri()], capture_output=True, text=True, timeout=120, check=True
        )
        asked = ASKED.findall(log.read_text(encoding="utf-8"))
        return done.stdout, [address for address in asked if not address.startswith(("file:", "data:"))]

    return opened


@needs_browser
def test_the_page_shows_its_plots_and_fetches_nothing(cli, opened):
    done = cli("quantize", "net.toy", "-p", "toy.round", "--data", "data.npz", "--benchmark", "--time", "1s")
    assert done.code == 0
    (page,) = (Path(name) for name in done.left if name.endswith(".report.html"))
    assert f"page: {page}" in done.out
    seen, addresses = opened(page)
    plots = re.findall(r"<svg [^>]*role=\"img\"[^>]*><title>([^<]+)</title>", seen)
    assert len(plots) == 2 * len(set(plots))
    for title in ("Size, speed and accuracy", "Error by layer", "By kind of operation", "The slowest layers"):
        assert any(plot.startswith(title) for plot in plots), title
    assert addresses == []


@needs_browser
def test_a_page_that_fetches_would_be_seen(tmp_path, opened):
    page = tmp_path / "probe.html"
    page.write_text("<img src='http://example.invalid/x.png'>", encoding="utf-8")
    assert "http://example.invalid/x.png" in opened(page)[1]


@needs_browser
def test_several_reports_come_side_by_side_with_their_front(cli, opened):
    names = [f"{scheme}.toy" for scheme in ("w8d8", "w4")]
    for name in names:
        assert cli("quantize", "net.toy", "-p", "toy.round", "--scheme", name[:-4], "--data", "data.npz", "--to", name)
    assert cli("report", *names, "--to", "both.html").code == 0
    seen, _ = opened(Path("both.html"))
    assert re.search(r"<title>\w+ against size and speed: w8d8.toy, w4.toy</title>", seen)


def test_the_page_of_a_rejected_artifact_lies_beside_it(cli, publish):
    publish(
        "acme",
        """
        from dataclasses import replace
        from qm.plugin import Quantizer, hookimpl
        from qm_toy.model import ToyModel

        def impl(job):
            return ToyModel([replace(layer, bias=layer.bias + 1000) for layer in job.model.native])

        @hookimpl
        def qm_cards():
            yield Quantizer(name="q", summary="s", impl=impl, takes={"toy"}, schemes={"w8"}, default="w8")
        """,
    )
    done = cli("quantize", "net.toy", "-p", "acme.q", "--data", "data.npz", "--to", "out.toy")
    assert done.code == 3
    assert {n for n in done.left if n.startswith("out")} == {
        "out.toy.rejected",
        "out.toy.rejected.report.json",
        "out.toy.rejected.report.html",
    }
    assert "out.toy was rejected" in Path("out.toy.rejected.report.html").read_text(encoding="utf-8")


def test_report_takes_the_artifact_for_its_report(cli):
    assert cli("quantize", "net.toy", "-p", "toy.round", "--to", "out.toy").code == 0
    assert cli("report", "out.toy", "--to", "a.html").left == {"a.html"}
    assert cli("report", "out.toy.report.json", "--to", "b.html").left == {"b.html"}
    assert Path("a.html").read_bytes() == Path("b.html").read_bytes()


def test_report_overwrites_nothing_without_force(cli):
    assert cli("quantize", "net.toy", "-p", "toy.round", "--to", "out.toy").code == 0
    refused = cli("report", "out.toy")
    assert refused.code == 2
    assert "out.toy.report.html' exists" in refused.err
    assert cli("report", "out.toy", "--force").code == 0


@pytest.mark.parametrize(("name", "complaint"), [("net.toy", "is not a report"), ("none.json", "cannot be read")])
def test_what_is_no_report_is_named(cli, name, complaint):
    refused = cli("report", name)
    assert refused.code == 2
    assert f"{name}' {complaint}" in refused.err
    assert refused.left == set()
