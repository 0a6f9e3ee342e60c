"""The league's page renders from rows, and a recipe's cost is its own."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
if not (BENCHMARKS / "peers").is_dir():
    pytest.skip("the benchmarks are not here", allow_module_level=True)


@pytest.fixture(scope="module")
def page():
    return module("peers.page")


def module(name):
    sys.path.insert(0, str(BENCHMARKS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(BENCHMARKS))


def judged(sqnr, ratio):
    return {
        "runtime": "onnxruntime 1",
        "cpu": "some CPU",
        "samples": 5000,
        "nbytes": 97_255,
        "sqnr_db": {"estimate": sqnr, "low": sqnr - 1, "high": sqnr + 1},
        "accuracy": {"before": 0.87, "difference": -0.012, "low": -0.02, "high": -0.004},
        "layers": {"integer_share": 0.5, "schemes": {"w8a8": 9, "float": 1}},
        "speed": {"ratio": 9.0, "cpu": {"ratio": ratio, "low": ratio - 0.1, "high": ratio + 0.1}, "noise_floor": 0.03},
    }


def row(tool, sqnr=20.0, ratio=1.5, failed=None):
    made = {"subject": "A net, ONNX", "tool": tool, "recipe": "default", "failed": failed, "judged": {}}
    if failed is None:
        cost = {"seconds": 9.0, "cpu_seconds": 4.0, "peak_bytes": 250_000_000}
        made |= {"version": "1.2", "cost": cost, "judged": {"native": judged(sqnr, ratio)}}
    return made


def test_a_row_shows_each_figure_with_its_interval(page):
    table = page.tables([row("qm")])
    assert (
        "| qm 1.2 | default | -1.2 (-2.0 to -0.4) | 20.0 (19.0 to 21.0) | 1.50 (1.40 to 1.60) | 97 kB "
        "| 50 % (9 w8a8, 1 float) | 4 s, 250 MB |" in table
    )
    assert "float 87.0 % of 5,000 images" in table


def test_lines_of_text_are_counted_that_are_read_as_before(page):
    one = row("qm")
    one["judged"]["native"] |= {"judged_by": "lines", "samples": 100}
    one["judged"]["native"]["accuracy"] = {"before": 1.0, "after": 0.97, "low": -0.085, "high": 0.004}
    table = page.tables([one])
    assert "| lines read as float reads them |" in table and "| 97 % (92 to 100) |" in table
    assert "100 lines." in table and "images" not in table


def test_a_file_that_does_not_tell_its_layers_gets_no_share(page):
    one = row("peer")
    one["judged"]["native"]["layers"] = None
    assert "| the file does not say |" in page.tables([one])


@pytest.mark.parametrize("widths", [(3, 3), (3, 5)], ids=["one shape", "two shapes"])
def test_samples_come_back_as_they_were_kept(tmp_path, widths):
    job = module("peers.recipe.job")
    samples = [np.full((2, width), width, np.float32) for width in widths]
    job.keep(tmp_path, "samples", samples)
    found = list(job.read_samples(job.stored(tmp_path, "samples")))
    assert [a.tolist() for a in found] == [a.tolist() for a in samples]


def test_the_best_comes_first_whoever_it_is(page):
    table = page.tables([row("qm", sqnr=20), row("peer", sqnr=30)])
    assert table.index("| peer") < table.index("| qm")


def test_who_failed_is_a_row_that_says_why(page):
    table = page.tables([row("qm"), row("peer", failed="not installed: ERROR: no matching distribution")])
    assert "| peer | default | not installed: ERROR: no matching distribution |" in table


def test_the_front_holds_what_no_other_beats_in_both(page):
    # (speed, SQNR): the third is slower and worse than the first; the last ties in speed and loses in SQNR.
    assert page.front([(2.0, 10.0), (1.0, 30.0), (1.5, 9.0), (1.0, 20.0)]) == [0, 1]


def test_only_what_is_between_the_markers_is_written(page, tmp_path):
    pytest.importorskip("matplotlib")
    file = tmp_path / "league.md"
    file.write_text("before\n<!-- net -->\nold\n<!-- end -->\nafter\n", encoding="utf-8")
    page.write(file, {"net": [row("qm")]})
    text = file.read_text(encoding="utf-8")
    assert text.startswith("before\n<!-- net -->\n") and text.endswith("<!-- end -->\nafter\n")
    assert "old" not in text and "| qm 1.2 |" in text
    assert (tmp_path / "league.png").read_bytes().startswith(b"\x89PNG")


def test_a_page_without_a_place_for_a_model_is_refused(page, tmp_path):
    file = tmp_path / "league.md"
    file.write_text("nothing\n", encoding="utf-8")
    with pytest.raises(ValueError, match="no place for 'net'"):
        page.write(file, {"net": [row("qm")]})


def measured(folder, limit_s, code):
    cost = folder / "cost.json"
    script = BENCHMARKS / "peers" / "measure.py"
    command = [sys.executable, "-I", "-S", script, cost, str(limit_s), sys.executable, "-I", "-S", "-c", code]
    done = subprocess.run(command, check=False)
    return done.returncode, json.loads(cost.read_text(encoding="utf-8"))


def test_the_memory_of_a_recipe_is_that_of_its_own_process(tmp_path):
    ballast = b"x" * 200_000_000
    code, cost = measured(tmp_path, 60, "x = b'y' * 50_000_000")
    # The bare interpreter takes about 10 MB; the 200 MB held here must not be in the figure.
    assert code == 0 and 50e6 < cost["peak_bytes"] < 100e6 < len(ballast)


def test_a_recipe_that_takes_too_long_is_ended(tmp_path):
    code, cost = measured(tmp_path, 0.5, "import time; time.sleep(60)")
    assert code == 124 and cost["seconds"] < 30


def test_a_recipe_that_fails_is_known_by_its_exit_code(tmp_path):
    assert measured(tmp_path, 60, "raise SystemExit(3)")[0] == 3
