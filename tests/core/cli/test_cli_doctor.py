import importlib.metadata
import json

import pytest

from qm import doctor, target

PLUGIN = "from qm.plugin import hookimpl\n\n@hookimpl\ndef qm_cards():\n    return ()\n"

NEEDING = """
from qm.plugin import Loader, hookimpl

@hookimpl
def qm_cards():
    yield Loader(name="load", summary="s", impl="x:y", suffixes={".x"}, gives="x", requires=("numpy", "no-such-thing"))
"""


def seen(result):
    return [problem["seen"] for problem in json.loads(result.stdout)["problems"]]


def test_a_name_that_two_distributions_claim_is_a_problem(qm, install):
    install("one", plugins={"toy": "qm_one"})
    result = qm("doctor")
    assert "the plugin name 'toy' is claimed by one 1.0 and by quantized-model" in result.stdout
    assert "pip uninstall" in result.stdout
    assert result.returncode == 1


def test_a_clash_is_told_once(qm, install):
    install("one", plugins={"toy": "qm_one"})
    assert sum("'toy'" in text for text in seen(qm("doctor", "--json"))) == 1


@pytest.mark.parametrize(
    ("package", "names"),
    [("tensorflow", ("tensorflow", "tensorflow-cpu")), ("onnxruntime", ("onnxruntime-gpu", "onnxruntime-openvino"))],
)
def test_two_distributions_of_one_package_are_a_problem(qm, install, package, names):
    for name in names:
        install(name, "99.0", files={f"{package}/__init__.py": ""})
    result = qm("doctor", "--json")
    (text,) = [text for text in seen(result) if "over each other" in text]
    assert all(name in text for name in names)
    assert result.returncode == 1


def test_a_broken_plugin_is_a_problem(qm, install):
    install("acme", plugins={"acme": "qm_acme"}, files={"qm_acme.py": "import no_such_module\n"})
    result = qm("doctor")
    assert "No module named 'no_such_module'" in result.stdout
    assert "Mend or uninstall acme" in result.stdout
    assert result.returncode == 1


def test_a_package_older_than_a_plugin_asks_for_is_a_problem(qm, install):
    install("old", "1.9.0")
    install("acme", plugins={"acme": "qm_acme"}, files={"qm_acme.py": PLUGIN}, requires=['old>=1.10; extra == "x"'])
    assert "old 1.9.0 is older than 1.10, which acme asks for" in seen(qm("doctor", "--json"))


def test_a_package_as_new_as_a_plugin_asks_for_is_none(qm, install):
    install("fresh-thing", "1.10")
    install("acme", plugins={"acme": "qm_acme"}, files={"qm_acme.py": PLUGIN}, requires=["fresh-thing>=1.10.0"])
    assert not [text for text in seen(qm("doctor", "--json")) if "fresh-thing" in text]


def test_what_a_plugin_runs_on_is_told_with_its_version(qm, install):
    install("acme", plugins={"acme": "qm_acme"}, files={"qm_acme.py": NEEDING})
    (told,) = [p for p in json.loads(qm("doctor", "--json").stdout)["plugins"] if p["name"] == "acme"]
    assert told["packages"] == [f"numpy {importlib.metadata.version('numpy')}"]
    assert told["lacking"] == ["no-such-thing"]
    assert told["state"] == "lacks no-such-thing"


def test_a_package_that_is_lacking_is_no_problem(qm, install):
    install("acme", plugins={"acme": "qm_acme"}, files={"qm_acme.py": NEEDING})
    assert not [text for text in seen(qm("doctor", "--json")) if "no-such-thing" in text]


def test_the_text_names_the_machine_and_what_int8_does_on_it(qm):
    text = qm("doctor").stdout
    assert target.host().summary in text
    assert doctor.meaning(target.host())[0] in text


def test_a_pair_of_products_that_saturates_is_said_to():
    assert "saturates" in doctor.meaning(target.find("x86-avx2"))[0]
    assert "nothing saturates" in doctor.meaning(target.find("x86-vnni"))[0]
    assert "nothing saturates" in doctor.meaning(target.find("arm-dotprod"))[0]


def test_what_is_not_known_of_a_cpu_is_said_not_to_be():
    assert "is not known" in doctor.meaning(target.find("arm-neon"))[0]


def test_abilities_are_those_of_the_architecture():
    assert doctor.abilities(target.find("x86-avx2")) == {"AVX2": True, "AVX-512": False, "VNNI": False, "AMX": False}
    assert doctor.abilities(target.find("arm-dotprod")) == {"NEON": True, "dot product": True}
    assert doctor.abilities(target.Target(name="odd")) == {"dot product": None}


def test_bounds_are_read_from_requirements_but_not_from_those_of_other_systems():
    requirements = [
        "numpy>=1.26",
        'onnx>=1.19; extra == "onnx"',
        "plain",
        "range<3,>=2.1",
        'win>=9; sys_platform == "win32"',
        "extra[dev] >=4",
    ]
    assert list(doctor.bounds(requirements)) == [("numpy", "1.26"), ("onnx", "1.19"), ("range", "2.1"), ("extra", "4")]
