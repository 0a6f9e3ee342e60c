import json
import os
import subprocess
import sys

BROKEN = {"qm_broken.py": "raise RuntimeError('the moon is full')\n"}
LACKING = """
from qm.plugin import Quantizer, hookimpl

@hookimpl
def qm_cards():
    yield Quantizer(name="q", summary="s", impl="x:y", takes={"toy"}, schemes={"w2"}, default="w2",
                    requires=("no-such-a | no-such-b",))
"""


def rows(result):
    """The words of each line, by the first of them."""
    return {line.split()[0]: line.split() for line in result.stdout.splitlines() if line.strip()}


def test_a_plugin_is_listed_with_its_distribution_version_and_module(qm, install):
    install("acme-tools", "2.5", plugins={"acme": "qm_acme.plugin"})
    assert rows(qm("plugins"))["acme"] == ["acme", "acme-tools", "2.5", "qm_acme.plugin"]


def test_listing_the_plugins_imports_none_of_them(qm, install):
    install("loud", plugins={"loud": "qm_loud"}, files={"qm_loud.py": "open('imported', 'w').close()\n"})
    script = (
        "import sys; from qm.__main__ import main; main(['plugins']); print([m for m in sys.modules if 'qm_' in m])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "qm_loud" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_reader_that_goes_away_is_no_error(site):
    for command in (["plugins"], ["plugins", "--methods"], ["plugins", "--json"]):
        gone, pipe = os.pipe()
        os.close(gone)
        done = subprocess.run([sys.executable, "-m", "qm", *command], stdout=pipe, stderr=subprocess.PIPE, check=False)
        os.close(pipe)
        assert (done.stderr, done.returncode) == (b"", 0)


def test_a_name_that_two_distributions_claim_is_shown_with_both(qm, install):
    install("one", plugins={"toy": "qm_one"})
    assert "clash: 'toy' is claimed by one 1.0 and by quantized-model" in qm("plugins").stdout
    clash = [row["distribution"] for row in json.loads(qm("plugins", "--json").stdout) if row["clash"]]
    assert sorted(clash) == ["one", "quantized-model"]


def test_a_plugin_that_is_blocked_is_not_listed(qm):
    assert "toy" not in rows(qm("plugins", QM_BLOCK="toy"))


def test_where_no_plugin_is_left_the_way_to_get_one_is_told(qm):
    result = qm("plugins", QM_BLOCK=",".join(rows(qm("plugins"))))
    assert result.stdout == "no plugin is installed\nInstall one: pip install 'quantized-model[onnx]'\n"


def test_a_method_is_listed_with_its_schemes_its_default_first(qm):
    methods = rows(qm("plugins", "--methods"))
    assert methods["toy.round"][1:6] == ["quantizer", "w8a8,", "w4,", "w8,", "w8d8"]
    assert methods["toy.round"][-1] == "ready"


def test_a_method_without_its_packages_says_what_it_lacks(qm, install):
    install("acme", plugins={"acme": "qm_acme"}, files={"qm_acme.py": LACKING})
    assert "lacks no-such-a | no-such-b" in qm("plugins", "--methods").stdout
    listed = {m["name"]: m for m in json.loads(qm("plugins", "--methods", "--json").stdout)["methods"]}
    assert listed["acme.q"]["lacking"] == ["no-such-a | no-such-b"]


def test_a_broken_plugin_is_one_line_and_its_neighbours_are_listed(qm, install):
    install("broken", plugins={"broken": "qm_broken"}, files=BROKEN)
    result = qm("plugins", "--methods")
    lines = [line for line in result.stdout.splitlines() if "broken" in line]
    assert len(lines) == 1
    assert "RuntimeError: the moon is full" in lines[0]
    assert "toy.round" in rows(result)
    assert (result.stderr, result.returncode) == ("", 0)


def test_a_broken_plugin_is_in_the_json_with_its_error(qm, install):
    install("broken", plugins={"broken": "qm_broken"}, files=BROKEN)
    (broken,) = json.loads(qm("plugins", "--methods", "--json").stdout)["broken"]
    assert broken["plugin"] == "broken"
    assert "the moon is full" in broken["error"]


def test_on_a_narrow_terminal_lines_are_folded_not_cut(qm):
    narrow = qm("plugins", "--methods", COLUMNS="60")
    assert max(map(len, narrow.stdout.splitlines())) <= 60
    assert "…" not in narrow.stdout
