"""Targets are data: where their files come from, what a wrong one says, how one steers routes, planners and audits."""

from __future__ import annotations

import os

import pytest

import qm
from qm import target
from qm.catalog import Catalog
from qm.data import open_data
from qm.doctor import problems
from qm.errors import RouteError, UsageError
from qm.journal import Journal
from qm.recipe import Recipe, Rule, Stage
from qm.report import Level
from qm.route import find_route
from qm.scheme import Scheme
from qm.step import load_model
from qm.workbench import Workbench


@pytest.fixture
def describe(tmp_path):
    """``describe(board="flash = 1")`` writes board.toml, and gives its path as text."""

    def describe(**files):
        for name, text in files.items():
            (tmp_path / f"{name}.toml").write_text(text, encoding="utf-8")
        return str(tmp_path / f"{next(iter(files))}.toml")

    return describe


@pytest.fixture
def publish_targets(tmp_path, monkeypatch):
    """Installs a distribution that brings target files in a package which must never be imported."""

    def publish(distribution, package, **files):
        site = tmp_path / f"site-{distribution}"
        folder = site / package / "boards"
        folder.mkdir(parents=True)
        (site / package / "__init__.py").write_text("raise RuntimeError('imported')\n")
        for name, text in files.items():
            (folder / f"{name}.toml").write_text(text)
        info = site / f"{distribution}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[qm.targets.v1]\n{package} = {package}.boards\n")
        monkeypatch.syspath_prepend(str(site))

    return publish


def route(net, target, *, has_data=True, **asked):
    recipe = Recipe(stages=(Stage(plugin="toy.round"),), target=target, **asked)
    return find_route(net, recipe, Catalog(), to=None, has_data=has_data)


def seen(report):
    return [(f.level, f.seen, f.layer) for f in report.findings if f.check == "target"]


def test_every_target_that_ships_is_right_and_says_what_it_is():
    found = list(target.every())
    assert {"arm-dotprod", "arm-neon", "cortex-m", "edgetpu", "x86-avx2", "x86-vnni"} == {t.name for t in found}
    assert all(t.summary for t in found)


def test_a_target_is_read_from_a_file(describe):
    found = target.find(describe(board='summary = "mine"\nflash = 1024\nschemes = ["int8"]'))
    assert (found.name, found.summary, found.flash, found.schemes) == ("board", "mine", 1024, ("w8a8",))


def test_a_fact_left_out_is_not_known(describe):
    found = target.find(describe(board=""))
    assert (found.flash, found.opens("onnx"), found.runs(Scheme.parse("w8a8"))) == (None, None, None)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('flash = "much"', "'flash': input should be a valid integer"),
        ("flesh = 1", "'flesh': is unknown here"),
        ('schemes = ["w99"]', "'schemes': 'w99' is not a scheme"),
        ('operators = ["Conv"]', "'operators': input should be a valid dictionary"),
        ('name = "other"', "'name': is unknown here"),
        ("extends = 3", "'extends': should be the name of a target"),
        ('extends = "board.toml"', "extends 'board.toml', which extends it"),
        ("flash =", "is not TOML"),
        ('extends = "cortex-n"', "'extends': there is no target 'cortex-n'"),
    ],
)
def test_a_wrong_file_is_one_sentence_that_names_the_field_and_a_hint(describe, text, complaint):
    with pytest.raises(UsageError) as caught:
        target.find(describe(board=text))
    assert complaint in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"board\.toml' does not exist"):
        target.find(str(tmp_path / "board.toml"))


def test_a_target_extends_another_and_changes_what_it_says(describe):
    path = describe(board='extends = "cortex-m"\nflash = 1024\nschemes = ["w8a8"]')
    found, base = target.find(path), target.find("cortex-m")
    assert (found.name, found.flash, found.schemes) == ("board", 1024, ("w8a8",))
    assert found.operators == base.operators
    assert base.flash is None


def test_a_target_extends_one_beside_it(describe):
    path = describe(board='extends = "./family.toml"\nflash = 1', family="flash = 2\nram = 3")
    assert (target.find(path).flash, target.find(path).ram) == (1, 3)


def test_files_in_the_users_folders_are_found_by_name_and_come_first(describe, monkeypatch, tmp_path):
    describe(**{"x86-avx2": "flash = 7", "board": "flash = 8"})
    monkeypatch.setenv("QM_TARGETS", os.pathsep.join([str(tmp_path / "missing"), str(tmp_path)]))
    assert (target.find("board").flash, target.find("x86-avx2").flash) == (8, 7)
    assert "board" in target.names()


def test_a_broken_file_of_the_user_hurts_only_those_who_ask_for_it_and_doctor_names_it(describe, monkeypatch, tmp_path):
    describe(broken="flash = 0")
    monkeypatch.setenv("QM_TARGETS", str(tmp_path))
    assert "x86-vnni" in {t.name for t in target.every()}
    assert any("broken.toml' is wrong: 'flash'" in p.seen for p in problems(Catalog()))


def test_a_distribution_brings_targets_and_none_of_its_code_is_imported(publish_targets):
    publish_targets("acme", "acme_chips", acme1='summary = "from acme"')
    assert target.find("acme1").summary == "from acme"
    assert target.locate("acme1").origin == "acme 1.0"


def test_a_distribution_that_is_blocked_brings_nothing(publish_targets, monkeypatch):
    publish_targets("acme", "acme_chips", acme1="")
    monkeypatch.setenv("QM_BLOCK", "acme_chips")
    assert "acme1" not in target.names()


def test_two_distributions_with_one_target_are_a_clash_that_names_both(publish_targets):
    publish_targets("acme", "acme_chips", acme1="")
    publish_targets("best", "best_chips", acme1="")
    with pytest.raises(UsageError, match=r"described by (acme|best) 1\.0 and by (acme|best) 1\.0") as caught:
        target.find("acme1")
    assert "--target /" in caught.value.hint


def test_the_default_scheme_is_one_that_the_target_runs(net, describe):
    assert str(route(net, describe(board='schemes = ["w4a4", "w4", "w8"]')).quantizers[0].default) == "w4"


def test_the_decision_for_another_default_is_in_the_report(net, data, describe, tmp_path):
    report = qm.quantize(
        net, ["toy.round"], data=data, target=describe(board='schemes = ["w8"]'), to=tmp_path / "o.toy"
    )
    assert "toy.round takes w8, as board does not run w8a8" in report.decisions


def test_samples_are_asked_for_where_the_target_runs_nothing_without(net, describe):
    with pytest.raises(RouteError, match="toy.round needs samples to calibrate w8a8") as caught:
        route(net, describe(board='schemes = ["w8a8"]'), has_data=False)
    assert "--scheme" not in caught.value.hint


def test_a_scheme_that_the_target_does_not_run_is_refused_with_one_that_it_does(net, describe):
    with pytest.raises(RouteError, match="scheme 'w4' does not run on board, which runs w8a8, w8") as caught:
        route(net, describe(board='schemes = ["w8a8", "w8"]'), scheme="w4")
    assert "--scheme w8a8" in caught.value.hint


def test_a_rule_for_a_scheme_that_the_target_does_not_run_is_refused(net, describe):
    with pytest.raises(RouteError, match="scheme 'w4' does not run on board"):
        route(net, describe(board='schemes = ["w8a8"]'), rules=(Rule(layers="head", scheme="w4"),))


def test_a_method_none_of_whose_schemes_runs_there_is_refused(net, describe):
    with pytest.raises(RouteError, match="scheme 'w8a8' does not run on board, which runs w2") as caught:
        route(net, describe(board='schemes = ["w2"]'))
    assert "another method" in caught.value.hint


def test_a_scale_per_tensor_runs_where_one_per_channel_does(describe):
    found = target.find(describe(board='schemes = ["w8a8"]'))
    assert [found.runs(Scheme.parse(text)) for text in ("w8a8", "w8a8t", "w8d8")] == [True, True, False]


def test_a_file_that_the_target_does_not_open_is_refused_with_a_method_that_fits(net, describe):
    with pytest.raises(RouteError, match="board opens clay files, and toy.save writes toy"):
        route(net, describe(board='formats = ["clay"]'))
    assert route(net, describe(board='formats = ["clay", "toy"]')).exporter.plugin == "toy.save"


def test_a_target_of_which_nothing_is_known_changes_nothing(net, data, describe, tmp_path):
    report = qm.quantize(net, ["toy.round"], data=data, target=describe(board=""), to=tmp_path / "out.toy")
    assert str(report.plan["first"]) == "w8a8"
    assert [f for f in seen(report) if "saturate" not in f[1]] == []


def test_a_planner_is_offered_only_what_runs_on_the_target(net, data, describe, tmp_path):
    catalog = Catalog()
    found = route(net, describe(board='schemes = ["w8a8", "w8"]'))
    model = load_model(catalog.manager, found.loader, net)
    samples = open_data(str(data), model.inputs())
    journal = Journal(tmp_path / "trials", {})
    bench = Workbench(catalog=catalog, route=found, model=model, calibration=samples, judging=samples, journal=journal)
    assert [str(s) for s in bench.offers(bench.layers[0])] == ["w8", "w8a8"]


def audited(net, data, path, tmp_path, **more):
    return seen(qm.quantize(net, ["toy.round"], data=data, target=path, to=tmp_path / "out.toy", **more))


def test_a_file_larger_than_the_flash_is_a_warning(net, data, describe, tmp_path):
    (found,) = [f for f in audited(net, data, describe(board="flash = 100"), tmp_path) if "flash" in f[1]]
    assert found[0] is Level.WARNING
    assert "does not fit" in found[1] and "of the 100 bytes of flash that board has" in found[1]


def test_a_file_smaller_than_the_flash_is_fine(net, data, describe, tmp_path):
    (found,) = [f for f in audited(net, data, describe(board="flash = 1000000"), tmp_path) if "flash" in f[1]]
    assert found[0] is Level.OK


def test_an_operator_that_the_target_lacks_is_a_warning_with_its_layers(net, data, describe, tmp_path):
    (found,) = [f for f in audited(net, data, describe(board='operators.toy = ["Conv"]'), tmp_path) if "Dense" in f[1]]
    assert found[0] is Level.WARNING
    assert "3 of 3 operations will not run as integers on board" in found[1]
    assert found[2] == "first, second, head"


def test_operators_of_another_format_say_nothing(net, data, describe, tmp_path):
    assert not [f for f in audited(net, data, describe(board='operators.clay = ["Conv"]'), tmp_path) if "oper" in f[1]]


@pytest.mark.parametrize(("strict", "level"), [("true", Level.WARNING), ("false", Level.NOTE)])
def test_a_layer_left_in_float_is_named(net, data, describe, tmp_path, strict, level):
    path = describe(board=f'integer_only = {strict}\noperators.toy = ["Dense"]')
    found = audited(net, data, path, tmp_path, rules=[Rule.exactly("head", "float")])
    (told,) = [f for f in found if "compute in float" in f[1]]
    assert (told[0], told[2]) == (level, "head")
    assert any("1 of 3 layers are in float, which is not among what board runs" in f[1] for f in found) is (
        strict == "true"
    )


def test_all_operations_as_integers_is_said(net, data, describe, tmp_path):
    found = audited(net, data, describe(board='operators.toy = ["Dense"]'), tmp_path)
    assert (Level.OK, "board runs all 3 operations as integers", "") in found


def test_schemes_not_known_to_be_fast_or_safe_are_notes(net, data, describe, tmp_path):
    path = describe(board='fast = ["w4"]\nsafe = ["w8d8"]')
    texts = [f[1] for f in audited(net, data, path, tmp_path) if f[0] is Level.NOTE]
    assert "w8a8 is not known to be faster than float on board, as w4 is" in texts
    assert "whether sums in w8a8 can saturate on board is not known" in texts
