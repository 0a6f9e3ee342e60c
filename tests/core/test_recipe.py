"""Recipes are files that a person can read, edit and run again."""

from __future__ import annotations

import pytest

from qm.errors import UsageError
from qm.recipe import Recipe, Rule, Stage

RECIPE = Recipe(
    stages=(Stage(plugin="onnx.ptq", options={"ranges": "mse"}),),
    rules=(Rule(layers="conv*", scheme="int8"), Rule.exactly("a[0]/b:*", "float")),
    seed=3,
)


@pytest.mark.parametrize("name", ["r.toml", "r.json"])
def test_a_recipe_survives_its_file(tmp_path, name):
    RECIPE.write(tmp_path / name)
    assert Recipe.read(tmp_path / name) == RECIPE


def test_a_rule_for_one_layer_matches_that_name_alone():
    rule = Rule.exactly("block[0]/conv:0*", "w8")
    assert rule.matches("block[0]/conv:0*")
    assert not rule.matches("block0/conv:0x")


def test_a_rule_is_a_glob():
    assert Rule(layers="layer?/*", scheme="w8").matches("layer3/conv")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("stages = [", "is not TOML"),
        ("colour = 'red'", "'colour': is unknown here"),
        ("version = 2", "'version': input should be less than or equal to 1"),
        ("seed = -1", "'seed': input should be greater than or equal to 0"),
        ("[[stages]]\noptions = {}", "'stages.0.plugin': field required"),
        ("scheme = 'w9000'", "'w9000' is not a scheme"),
    ],
)
def test_a_wrong_recipe_is_refused_with_the_place(tmp_path, text, complaint):
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(UsageError, match=complaint):
        Recipe.read(tmp_path / "r.toml")


def test_a_missing_recipe_is_named(tmp_path):
    with pytest.raises(UsageError, match="r.toml' does not exist"):
        Recipe.read(tmp_path / "r.toml")


def test_a_recipe_is_not_overwritten_without_force(tmp_path):
    RECIPE.write(tmp_path / "r.toml")
    with pytest.raises(UsageError, match="exists"):
        RECIPE.write(tmp_path / "r.toml")
