"""Every command and every line of Python in README and docs is run; what has a reference page is on it."""

import argparse
import importlib
import os
import re
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from qm import plugin, target
from qm.__main__ import COMMANDS, VARIABLES
from qm.catalog import Catalog
from qm.data.description import Description
from qm.plugin import GROUP, Planner, Quantizer
from qm.recipe import Recipe
from qm.report import Report

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(?P<info>[^\n]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:)(?P<path>[^)#]*)(?:#(?P<anchor>[^)]*))?\)")

# The tutorial is run by its own test, against an installed plugin.
PAGES = sorted(p for p in [ROOT / "README.md", *ROOT.glob("docs/**/*.md")] if "tutorial" not in p.parts)


def blocks(page):
    """Language, words after it, and body of each fenced block."""
    for found in BLOCK.finditer(page.read_text(encoding="utf-8")):
        language, *words = found["info"].split() or [""]
        yield language, words, found["body"]


def commands(body):
    """What a ``console`` block tells to type: the lines after a dollar sign."""
    return "\n".join(line[2:] for line in body.splitlines() if line.startswith("$ "))


def name(page):
    return page.relative_to(ROOT).as_posix()


@pytest.fixture
def folder(tmp_path):
    """A folder with the files that the pages speak of."""
    for file in ("digits.onnx", "digits.npz"):
        (tmp_path / file).write_bytes(resources.files("qm.demo").joinpath(file).read_bytes())
    shutil.copyfile(ROOT / "tests/tf/models/small.tflite", tmp_path / "net.tflite")
    rng = np.random.default_rng(7)
    images = rng.normal(0, 1, (200, 16, 16, 3)).astype(np.float32)
    np.savez(tmp_path / "net.npz", image=images, y=rng.integers(0, 10, len(images)))
    return tmp_path


def execute(command, folder):
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=folder, env={**os.environ, "PATH": path}, check=False
    )
    assert done.returncode == 0, f"{command[-1]}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_command_on_the_page_runs(page, folder):
    for language, words, body in blocks(page):
        file = next((w.removeprefix("file=") for w in words if w.startswith("file=")), None)
        if file:
            (folder / file).write_text(body, encoding="utf-8")
        if language == "python" and not file:
            execute([sys.executable, "-c", body], folder)
        elif language in ("sh", "console"):
            script = body if language == "sh" else commands(body)
            execute([shutil.which("bash"), "-e", "-u", "-o", "pipefail", "-c", script], folder)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_block_says_what_it_is(page):
    assert {language for language, _, _ in blocks(page)} <= {"sh", "console", "python", "toml", "text"}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_leads_somewhere(page):
    for found in LINK.finditer(page.read_text(encoding="utf-8")):
        target = page.parent / found["path"] if found["path"] else page
        assert target.exists(), found[0]
        if found["anchor"]:
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert found["anchor"] in [re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings], found[0]


def test_every_described_data_set_and_recipe_is_valid(tmp_path):
    kinds = {"data": Description.read, "recipe": Recipe.read, "target": lambda path: target.find(str(path))}
    seen = []
    for page in PAGES:
        for language, _, body in blocks(page):
            if language == "toml":
                kind = "target" if page.stem == "target" else "recipe" if "stages" in body else "data"
                (tmp_path / "x.toml").write_text(body, encoding="utf-8")
                kinds[kind](tmp_path / "x.toml")
                seen.append(kind)
    assert set(seen) == {"data", "recipe", "target"}


def test_the_readme_lists_every_method_with_its_schemes_and_no_other():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    ours = {"mixed", "onnx", "tensors", "tf", "torch", "toy"}
    listed = {}
    for line in readme.splitlines():
        if found := re.match(r"\| [^|]+ \| `(?P<name>[a-z]+\.\w+)`[^|]* \| (?P<schemes>[^|]*)\|", line):
            listed[found["name"]] = set(re.findall(r"`(\w+)`", found["schemes"]))
    catalog = Catalog()
    expected = {f.plugin: set(f.card.schemes) for f in catalog.all(Quantizer) if f.namespace in ours}
    expected |= {f.plugin: set() for f in catalog.all(Planner) if f.namespace in ours}
    assert listed == expected


def test_every_command_and_flag_is_in_the_reference():
    text = (ROOT / "docs/reference/commands.md").read_text(encoding="utf-8")
    for command in COMMANDS:
        assert f"`qm {command}" in text
        parser = argparse.ArgumentParser()
        importlib.import_module(f"qm.cli.{command}").add(parser)
        for action in parser._actions:
            for flag in action.option_strings:
                assert flag in ("-h", "--help") or re.search(rf"`{flag}\b", text), f"{command} {flag}"


def test_every_environment_variable_is_in_the_reference():
    text = (ROOT / "docs/reference/commands.md").read_text(encoding="utf-8")
    assert [v for v in VARIABLES if f"| `{v}` |" not in text] == []


@pytest.mark.parametrize(
    ("page", "model"), [("report", Report), ("recipe", Recipe), ("data", Description), ("target", target.Target)]
)
def test_every_field_of_a_file_is_in_its_reference(page, model):
    (path,) = [p for p in PAGES if p.stem == page]
    rows = [line.split("|")[1] for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    documented = {word for row in rows for word in re.findall(r"`(\w+)`", row)}
    assert set(model.model_fields) - documented == set()


def test_every_hook_card_and_job_is_in_the_plugin_reference():
    from dataclasses import fields

    from qm import hookspec

    text = (ROOT / "docs/reference/plugin.md").read_text(encoding="utf-8")
    assert GROUP in text
    assert [hook for hook in vars(hookspec) if hook.startswith("qm_") and f"`{hook}(" not in text] == []
    common = {f.name for f in fields(plugin.Card)}
    for made in (
        "Loader",
        "Planner",
        "Quantizer",
        "Exporter",
        "Benchmark",
        "LoadJob",
        "PlanJob",
        "QuantizeJob",
        "ExportJob",
        "BenchmarkJob",
    ):
        (row,) = [line for line in text.splitlines() if line.startswith(f"| `{made}` |")]
        names = {f.name for f in fields(getattr(plugin, made))} - (common if not made.endswith("Job") else set())
        assert [n for n in sorted(names) if f"`{n}`" not in row] == [], made
