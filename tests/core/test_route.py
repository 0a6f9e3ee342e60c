"""A request is routed over cards before anything is loaded, and every mismatch is found at once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from qm.__main__ import main
from qm.catalog import Catalog
from qm.errors import RouteError
from qm.recipe import Recipe, Rule, Stage
from qm.route import find_route


def route(net: Path, *methods: str, to: Path | None = None, has_data: bool = True, **more):
    stages = tuple(Stage(plugin=name) for name in methods)
    return find_route(net, Recipe(stages=stages, **more), Catalog(), to=to, has_data=has_data)


def test_the_default_name_has_the_scheme_and_the_suffix(net):
    assert route(net, "toy.round").to == net.with_name("net.w8a8.toy")


def test_without_data_a_method_falls_back_to_what_needs_none(net):
    found = route(net, "toy.round", has_data=False)
    assert str(found.quantizers[0].default) == "w8d8"
    assert found.to.name == "net.w8d8.toy"


def test_a_planner_is_followed_by_the_quantizer_it_plans_for(net):
    found = route(net, "toy.protect", "toy.round")
    assert [leg.found.plugin for leg in found.planners] == ["toy.protect"]
    assert [leg.found.plugin for leg in found.quantizers] == ["toy.round"]


def test_all_problems_are_raised_together(net):
    with pytest.raises(RouteError) as caught:
        route(net.with_name("missing.toy"), "toy.ruond", target="mars")
    assert len(caught.value.problems) == 3


def test_a_planner_that_needs_more_than_the_loader_offers_is_refused(net, publish):
    publish(
        "acme",
        """
        from qm.plugin import Planner, hookimpl
        @hookimpl
        def qm_cards():
            yield Planner(name="p", summary="s", impl="nowhere:p", needs={"gradients"})
        """,
    )
    with pytest.raises(RouteError, match="acme.p needs gradients of the model, which toy.load does not offer"):
        route(net, "acme.p", "toy.round")


def test_a_method_for_another_format_is_refused_with_the_methods_that_fit(net, publish):
    publish(
        "acme",
        """
        from qm.plugin import Quantizer, hookimpl
        @hookimpl
        def qm_cards():
            yield Quantizer(name="q", summary="s", impl="no:where", takes={"clay"}, schemes={"w8"}, default="w8")
        """,
    )
    with pytest.raises(RouteError, match="(?s)acme.q takes clay models, and toy.load gives toy.*toy.round"):
        route(net, "acme.q")


def test_a_requirement_that_is_not_installed_is_named_with_the_way_to_install_it(net, publish):
    publish(
        "acme",
        """
        from qm.plugin import Quantizer, hookimpl
        @hookimpl
        def qm_cards():
            yield Quantizer(name="q", summary="s", impl="no:where", takes={"toy"}, schemes={"w8"}, default="w8",
                            requires=("no-such-framework | nor-this",))
        """,
    )
    with pytest.raises(RouteError, match="(?s)acme.q needs no-such-framework | nor-this.*pip install"):
        route(net, "acme.q")


COMPILED = """
from qm.plugin import Benchmark, Exporter, Loader, hookimpl
@hookimpl
def qm_cards():
    yield Loader(name="open", summary="s", impl="no:where", suffixes={{".brick"}}, gives="brick",
                 requires=("no-such-framework",))
    yield Benchmark(name="run", summary="s", impl="no:where", takes={{"brick"}})
    {more}
"""
BAKE = 'yield Exporter(name="bake", summary="s", impl="no:where", takes={"toy"}, gives="brick", suffix=".brick")'
UNBAKE = 'yield Exporter(name="soak", summary="s", impl="no:where", takes={"brick"}, gives="toy", suffix=".toy")'


@pytest.mark.parametrize(
    ("more", "hint"),
    [("", "Give the model it was made from."), (BAKE, "Give the toy model it was made from, which toy.load reads.")],
)
def test_a_format_that_is_run_and_never_quantized_is_one_problem(tmp_path, publish, more, hint):
    publish("acme", COMPILED.format(more=more))
    (tmp_path / "net.brick").touch()
    with pytest.raises(RouteError) as caught:
        route(tmp_path / "net.brick", "toy.round")
    (problem,) = caught.value.problems
    assert problem.message == f"'{tmp_path / 'net.brick'}' is of format brick, which can be run and not be quantized"
    assert problem.hint == hint


def test_a_format_with_a_way_back_is_not_called_final(tmp_path, publish):
    publish("acme", COMPILED.format(more=UNBAKE).replace('requires=("no-such-framework",)', ""))
    (tmp_path / "net.brick").touch()
    assert route(tmp_path / "net.brick", "toy.round").bridge.exporter.plugin == "acme.soak"


EXPORTER = """
from qm.plugin import Exporter, NotReady, hookimpl

def check():
    {check}

@hookimpl
def qm_cards():
    yield Exporter(name="e", summary="s", impl="no:where", takes={{"toy"}}, gives="brick", suffix=".brick",
                   ready="{module}:check")
"""
UNREADY = "raise NotReady('bricks are burnt, and there is no kiln', hint='Build one.')"


def exporter(publish, check, module="plugin_qm_acme"):
    publish("acme", EXPORTER.format(check=check, module=module))


def test_what_an_exporter_lacks_is_said_before_anything_is_loaded(tmp_path, publish):
    exporter(publish, UNREADY)
    (tmp_path / "net.toy").write_text("no model at all")
    with pytest.raises(RouteError) as caught:
        route(tmp_path / "net.toy", "toy.round", to=tmp_path / "net.brick")
    assert (caught.value.message, caught.value.hint) == ("bricks are burnt, and there is no kiln", "Build one.")


def test_an_exporter_that_lacks_nothing_writes(net, publish):
    exporter(publish, "pass")
    assert route(net, "toy.round", to=net.with_name("net.brick")).exporter.plugin == "acme.e"


def test_an_exporter_that_nobody_asked_for_may_lack_what_it_likes(net, publish):
    exporter(publish, UNREADY)
    assert route(net, "toy.round", to=net.with_name("other.toy")).exporter.plugin == "toy.save"


def test_a_readiness_check_that_fails_is_the_plugins_own_failure(net, publish):
    exporter(publish, "pass", module="no_such_module")
    with pytest.raises(RouteError, match="plugin 'acme.e': asking whether it is ready failed: ModuleNotFound") as e:
        route(net, "toy.round", to=net.with_name("net.brick"))
    assert e.value.exit_code == 4


def test_what_an_exporter_lacks_is_listed(publish, capsys):
    exporter(publish, UNREADY)
    assert main(["plugins", "--methods", "--json"]) == 0
    listed = {m["name"]: m for m in json.loads(capsys.readouterr().out)["methods"]}
    assert (listed["acme.e"]["ready"], listed["toy.save"]["ready"]) == (False, True)
    assert main(["show", "acme.e"]) == 0
    assert "not ready: bricks are burnt, and there is no kiln" in capsys.readouterr().out
    main(["doctor", "--json"])
    health = {p["name"]: p for p in json.loads(capsys.readouterr().out)["plugins"]}
    assert health["acme"]["state"] == "acme.e: bricks are burnt, and there is no kiln"


def test_a_method_that_treats_all_layers_alike_refuses_rules(net, publish):
    publish(
        "acme",
        """
        from qm.plugin import Quantizer, hookimpl
        @hookimpl
        def qm_cards():
            yield Quantizer(name="q", summary="s", impl="no:where", takes={"toy"}, schemes={"w8"}, default="w8",
                            per_layer=False)
        """,
    )
    with pytest.raises(RouteError, match="acme.q treats all layers alike"):
        route(net, "acme.q", rules=(Rule(layers="first", scheme="float"),))


def test_a_route_can_be_read(net):
    lines = route(net, "toy.round").lines()
    assert lines[0] == f"load       {net} with toy.load"
    assert lines[1] == "quantize   with toy.round to w8a8"


def test_routing_imports_no_framework(net):
    code = (
        "import sys; from pathlib import Path; from qm.catalog import Catalog; from qm.recipe import *;"
        "from qm.route import find_route;"
        f"stages = (Stage(plugin='toy.round'),); find_route(Path({str(net)!r}), Recipe(stages=stages), Catalog(), "
        "to=None, has_data=True);"
        "print(sorted({m.partition('.')[0] for m in sys.modules} & {'onnx', 'onnxruntime', 'torch', 'tensorflow'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
