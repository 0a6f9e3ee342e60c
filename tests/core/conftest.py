"""A toy model and samples for the core's tests."""

from __future__ import annotations

import pytest

import qm_toy


@pytest.fixture
def net(tmp_path):
    """The path of a toy model with the layers first, second and head."""
    return qm_toy.make(tmp_path / "net.toy")


@pytest.fixture
def data(tmp_path):
    """The path of 80 labelled samples for it."""
    return qm_toy.make_data(tmp_path / "data.npz", samples=80)
