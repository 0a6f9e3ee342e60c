"""What ``qm benchmark`` and ``qm compare`` print, and their exit codes."""

import io
import json

import pytest
from rich.console import Console

import qm
import qm_toy
from qm.cli.live import Live


@pytest.fixture
def models(site):
    """A toy model, the same in 8 bits, and labelled samples, in the current folder of the command."""
    qm_toy.make(site / "net.toy")
    qm_toy.make_data(site / "data.npz", samples=80)
    qm.quantize(site / "net.toy", ["toy.round"], data=site / "data.npz", samples=30, to=site / "small.toy")
    return site


def test_compare_prints_a_table_that_fits_eighty_columns(qm, models):
    (models / "broken.toy").write_bytes(b"not a model")
    done = qm("compare", "net.toy", "small.toy", "broken.toy", "--data", "data.npz", "--time", "0.1", COLUMNS="80")
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "failed" in done.stdout and "'broken.toy'" in done.stdout
    unwrapped = " ".join(done.stdout.split())
    assert "A/A noise floor" in unwrapped and "hot cache, 1 thread" in unwrapped
    assert "marks the models that no other beats beyond doubt in size, speed, accuracy" in unwrapped
    assert done.returncode == 2


def test_compare_prints_json_alone_for_programs(qm, models):
    done = qm("compare", "net.toy", "small.toy", "--data", "data.npz", "--time", "0.1", "--json")
    told = json.loads(done.stdout)
    assert [e["name"] for e in told["entries"]] == ["net.toy", "small.toy"]
    assert len(told["entries"][1]["quality"]["outcomes"]["after"]) == told["samples"] == 50
    assert (done.returncode, done.stderr) == (0, "")


def test_benchmark_prints_what_was_measured_and_the_verdicts(qm, models):
    (models / "mine.py").write_text("def margin(outputs, label):\n    return float(outputs['y'][0, label])\n")
    words = ["--data", "data.npz", "--time", "0.1", "--metric", "mine:margin", "--max-drop", "5"]
    done = qm("benchmark", "small.toy", "--baseline", "net.toy", *words, COLUMNS="80")
    for word in (
        "size",
        "gzip",
        "latency",
        "load",
        "memory",
        "speed",
        "mine:margin",
        "answers",
        "by metric",
        "machine",
    ):
        assert word in done.stdout, word
    assert "not worse by more than 5" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert done.returncode == 0


def test_a_metric_that_raises_is_one_sentence(qm, models):
    (models / "mine.py").write_text("def broken(outputs, label):\n    return outputs['z']\n")
    done = qm("benchmark", "net.toy", "--data", "data.npz", "--metric", "mine:broken")
    assert done.stderr.startswith("error: metric 'mine:broken' raised KeyError on sample 0: 'z'\nhint:")
    assert done.returncode == 2


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--max-drop", "much"], "'much' is not a share such as 1% or 0.01"),
        (["--max-drop", "2"], "an allowed loss of 2 is not a share"),
        (["--precision", "200%"], "'200%' is not a share such as 2% or 0.02"),
        (["--cache", "warm"], "invalid choice: 'warm'"),
        (["--timeout", "soon"], "'soon' is not a time such as 60s or 2m"),
    ],
)
def test_a_wrong_value_is_one_sentence(qm, models, words, complaint):
    done = qm("compare", "net.toy", *words)
    assert complaint in done.stderr and len(done.stderr.splitlines()) == 2
    assert done.returncode == 2


def test_rows_fill_up_on_a_terminal_while_it_is_measured(models):
    screen = io.StringIO()
    with Live(Console(file=screen, force_terminal=True, width=100)) as live:
        qm.benchmark(models / "net.toy", data=models / "data.npz", time_s=0.1, progress=live, watch=live.watch)
    drawn = screen.getvalue()
    assert "net.toy: opening" in drawn and "net.toy: judging" in drawn and "net.toy: timing" in drawn
    assert drawn.count("size, gzip") > 2


def test_nothing_is_drawn_where_there_is_no_terminal(models):
    screen = io.StringIO()
    with Live(Console(file=screen, width=100)) as live:
        qm.benchmark(models / "net.toy", time_s=0.1, progress=live, watch=live.watch)
    assert screen.getvalue() == ""
