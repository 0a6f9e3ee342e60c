"""A space that can be enumerated: a method with two schemes and a choice of four ranges, one of them good."""

from __future__ import annotations

import os
import shutil
import sys

import pytest

import qm
import qm_toy

ENOUGH_DB = 11.6
"""Between the best cover of w4 and the next: 11.8 and 11.1 dB on the samples that judge."""

GRID = """
import os, signal, time
from dataclasses import replace
from pathlib import Path
from typing import Literal

from qm.plugin import Field, Options, Quantizer, hookimpl
from qm_toy.model import ToyModel
from qm_toy.round import round_nearest

SHARES = {"tenth": 0.1, "half": 0.5, "most": 0.85, "whole": 1.0}


class GridOptions(Options):
    cover: Literal["tenth", "half", "most", "whole"] = Field(default="tenth", description="share of the range")


def quantize(job):
    (scheme,) = job.plan.schemes()
    told = f"{scheme} {job.options.cover}"
    here = Path(os.environ.get("QM_GRID_FOLDER", "."))
    with open(here / "tried.log", "a") as log:
        log.write(told + "\\n")
    time.sleep(float(os.environ.get("QM_GRID_SLEEP", 0)))
    once, ever = here / "kill-once", here / "kill-ever"
    if once.exists() and once.read_text() == told:
        once.unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    if ever.exists() and ever.read_text() == told:
        os.kill(os.getpid(), signal.SIGKILL)
    layers = []
    for layer in job.model.native:
        packed = round_nearest(layer.weight.values(), scheme.weight_bits, SHARES[job.options.cover])
        layers.append(replace(layer, weight=packed))
    return ToyModel(layers)


@hookimpl
def qm_cards():
    yield Quantizer(
        name="grid", summary="rounds", impl=quantize, options=GridOptions, takes={"toy"}, schemes={"w8", "w4"},
        default="w8",
    )
    yield Quantizer(
        name="absent", summary="lacks a package", impl=quantize, takes={"toy"}, schemes={"w4"}, default="w4",
        requires=("no-such-distribution",),
    )
"""


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """A folder with the grid, installed."""
    place = tmp_path_factory.mktemp("site")
    info = place / "qm_grid-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: qm-grid\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[qm.v1]\ngrid = plugin_grid\n")
    (place / "plugin_grid.py").write_text(GRID)
    return place


@pytest.fixture
def work(tmp_path, site, monkeypatch):
    """A folder with a toy model and 1200 labelled samples, as the current one; the grid is installed."""
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.chdir(tmp_path)
    qm_toy.make("net.toy")
    qm_toy.make_data("data.npz", samples=1200)
    return tmp_path


@pytest.fixture(scope="session")
def once(tmp_path_factory, site):
    """A folder in which a search came to its end, and what it found."""
    folder = tmp_path_factory.mktemp("once")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        patch.chdir(folder)
        qm_toy.make("net.toy")
        qm_toy.make_data("data.npz", samples=1200)
        return folder, qm.tune("net.toy", data="data.npz", min_sqnr_db=ENOUGH_DB, executor="inline")


@pytest.fixture
def tuned(once, tmp_path, site, monkeypatch):
    """A copy of that folder, as the current one, and what was found."""
    folder, found = once
    monkeypatch.syspath_prepend(str(site))
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path, found


@pytest.fixture
def environment(site):
    """What a child needs to find the same modules."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), *sys.path])}
