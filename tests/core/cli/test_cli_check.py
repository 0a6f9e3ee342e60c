import contextlib
import json
import shutil
from argparse import ArgumentTypeError
from xml.etree import ElementTree as ET

import pytest

from qm.__main__ import main
from qm.api import quantize
from qm.cli.check import decibel, factor, nbytes, share
from qm.report import report_path
from qm_toy import make, make_data


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A quantized toy model and its report, with paths that are relative."""
    folder = tmp_path_factory.mktemp("template")
    with contextlib.chdir(folder):
        quantize(make("net.toy"), ["toy.round"], data=make_data("data.npz", samples=80), to="small.toy")
    return folder


@pytest.fixture
def folder(tmp_path, monkeypatch, template):
    """A folder of one's own with the same files, which is the current one."""
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def cli(folder, capsys):
    def cli(*words):
        try:
            code = main(["check", *words])
        except SystemExit as e:
            code = e.code
        return code, *capsys.readouterr()

    return cli


REPORT = "small.toy.report.json"


def test_every_goal_met_ends_in_0(cli):
    code, out, err = cli(REPORT, "--max-size", "1MB", "--max-ratio", "50%", "--min-sqnr", "20dB")
    assert (code, err) == (0, "")
    assert [line.split()[:2] for line in out.splitlines()] == [
        ["small.toy"],
        ["met", "audit"],
        ["met", "--max-size"],
        ["met", "--max-ratio"],
        ["met", "--min-sqnr"],
    ]


def test_a_missed_goal_ends_in_1_and_a_sentence(cli, folder):
    code, out, err = cli(REPORT, "--max-size", "100B")
    size = (folder / "small.toy").stat().st_size
    assert code == 1
    assert "missed  --max-size 100B  " in out
    assert err == (
        f"error: 'small.toy' misses '--max-size 100B': {size:,} bytes\n"
        "hint:  See what is still stored wide: qm inspect small.toy\n"
    )


def test_a_figure_that_is_not_there_ends_in_2_and_how_to_get_it(cli):
    code, _, err = cli(REPORT, "--min-speedup", "1.2")
    assert code == 2
    assert err == (
        f"error: '--min-speedup 1.2' asks for a speed, and {REPORT!r} has none\n"
        "hint:  Quantize with --benchmark, or measure it: qm benchmark small.toy --baseline net.toy --data data.npz "
        "--json > bench.json, then qm check bench.json.\n"
    )


def test_an_artifact_that_was_not_accepted_ends_in_3(cli, folder):
    told = json.loads((folder / REPORT).read_text())
    (folder / REPORT).write_text(json.dumps({**told, "accepted": False}))
    code, _, err = cli(REPORT)
    assert code == 3
    assert err.startswith("error: 'small.toy' was not accepted by its audit")


def test_another_artifact_ends_in_2_with_both_hashes(cli, folder):
    (folder / "small.toy").write_bytes(b"another")
    code, _, err = cli(REPORT, "--max-size", "1MB")
    assert code == 2
    assert err.startswith("error: 'small.toy' is not the artifact of 'small.toy.report.json': its SHA-256 is ")


def test_one_report_that_is_missing_does_not_hide_the_others(cli):
    code, out, err = cli("none.json", REPORT, "--max-size", "1MB")
    assert code == 2
    assert "met  --max-size 1MB" in out
    assert err.startswith("error: report 'none.json' cannot be read: No such file or directory")


def test_json_tells_every_figure(cli):
    code, out, _ = cli(REPORT, "--max-size", "100B", "--json")
    told = json.loads(out)
    assert told["exit_code"] == code == 1
    (report,) = told["reports"]
    (goal,) = report["goals"]
    assert goal["answer"] == "missed"
    assert goal["value"] == report["artifact"]["nbytes"]


def test_both_files_are_written_though_a_goal_is_missed(cli, folder):
    code, _, _ = cli(REPORT, "--max-size", "100B", "--junit", "j.xml", "--sarif", "s.json")
    assert code == 1
    assert ET.parse(folder / "j.xml").getroot()[0].get("failures") == "1"
    assert json.loads((folder / "s.json").read_text())["runs"][0]["invocations"][0]["exitCode"] == 1


def test_files_of_the_last_run_are_replaced(cli, folder):
    (folder / "j.xml").write_text("old")
    assert cli(REPORT, "--junit", "j.xml")[0] == 0
    ET.parse(folder / "j.xml")


@pytest.mark.parametrize("taken", [REPORT, "./small.toy"])
def test_what_is_checked_is_not_overwritten(cli, folder, taken):
    before = (folder / taken).read_bytes()
    code, _, err = cli(REPORT, "--junit", taken)
    assert code == 2
    assert err.endswith("hint:  Name another file with --junit.\n")
    assert (folder / taken).read_bytes() == before


def test_a_folder_that_is_not_there_is_told_how_to_make(cli):
    code, _, err = cli(REPORT, "--sarif", "out/s.json")
    assert (code, err) == (2, "error: the folder 'out' does not exist\nhint:  Make it: mkdir -p out\n")


def test_a_folder_in_place_of_a_file_is_refused(cli, folder):
    (folder / "out").mkdir()
    code, _, err = cli(REPORT, "--sarif", "out")
    assert (code, err) == (2, "error: 'out' is a folder\nhint:  Name another file with --sarif.\n")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("100kB", 100_000), ("1.5MB", 1_500_000), ("300KiB", 307_200), ("2MiB", 2_097_152), ("1GB", 10**9),
        ("100", 100), ("100B", 100), ("0.5 kB", 500), ("10k", 10_000), ("1Mi", 1_048_576),
    ],
)  # fmt: skip
def test_a_size_is_read(text, expected):
    assert nbytes(text) == expected


@pytest.mark.parametrize("text", ["", "kB", "-1kB", "0", "1TB", "1e3", "1,5MB", "iB", "5iB", "100 kilobyte"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ArgumentTypeError, match="is not a size such as 100kB, 1.5MB or 300KiB"):
        nbytes(text)


def test_ratios_decibels_and_shares_are_read():
    assert [factor(t) for t in ("0.3", "30%", "1.2x", ".5")] == [0.3, 0.3, 1.2, 0.5]
    assert [decibel(t) for t in ("20", "20dB", "0 db")] == [20, 20, 0]
    assert [share(t) for t in ("1%", "0.01", "0%", "50%")] == [0.01, 0.01, 0, 0.5]


@pytest.mark.parametrize(
    ("parse", "text"),
    [(factor, "0"), (factor, "-1"), (factor, "x"), (decibel, "20 watt"), (decibel, "-3"), (share, "1"), (share, "x")],
)
def test_what_is_no_bound_is_refused(parse, text):
    with pytest.raises(ArgumentTypeError, match=f"{text!r} is not a"):
        parse(text)


def test_a_wrong_bound_ends_in_2_and_a_sentence(cli):
    code, _, err = cli(REPORT, "--max-drop", "1")
    assert code == 2
    assert err.startswith("error: argument --max-drop: '1' is not a share such as 1% or 0.01\n")


def test_the_report_lies_where_the_hint_says(cli):
    _, _, err = cli("small.toy")
    assert f"Did you mean {str(report_path(make('small.toy')))!r}?" in err
