"""Without the library that draws there is the report alone, and a word on how to get the page."""

from __future__ import annotations

import importlib.metadata

import pytest

import qm
from qm import page
from qm.__main__ import main
from qm.errors import NotReady


@pytest.fixture
def without_matplotlib(monkeypatch):
    real = importlib.metadata.version

    def version(name):
        if name == page.REQUIRES:
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)


def test_quantize_writes_no_page_and_says_how_to_get_one(without_matplotlib, net, tmp_path, capsys):
    assert main(["quantize", str(net), "-p", "toy.round", "--to", str(tmp_path / "out.toy")]) == 0
    assert "page: none; to get one, pip install 'quantized-model[report]'" in capsys.readouterr().out
    assert {p.name for p in tmp_path.glob("out.toy*")} == {"out.toy", "out.toy.report.json"}


def test_a_page_asked_for_is_refused_with_the_command_that_helps(without_matplotlib, net, tmp_path):
    report = qm.quantize(net, ["toy.round"], to=tmp_path / "out.toy")
    with pytest.raises(NotReady, match="a page needs matplotlib") as caught:
        page.write([report], tmp_path / "out.html")
    assert "quantized-model[report]" in caught.value.hint


def test_python_draws_no_page_unasked(net, tmp_path):
    qm.quantize(net, ["toy.round"], to=tmp_path / "out.toy")
    assert list(tmp_path.glob("*.html")) == []
