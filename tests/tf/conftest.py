"""Small models for the tests of qm_tf; ``models/make.py`` writes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from qm.plugin import LoadJob
from qm_tf.load import load
from qm_tf.model import LiteModel

MODELS = Path(__file__).parent / "models"
Array = NDArray[np.float32]


@pytest.fixture(scope="session")
def models() -> Path:
    """The folder with ``small.tflite``, ``mlp.tflite`` and ``words.tflite``, all in float."""
    return MODELS


@pytest.fixture(scope="session")
def loaded() -> Callable[[str], LiteModel]:
    """``loaded("small")`` is that model, put in order."""
    return lambda name: load(LoadJob(path=MODELS / f"{name}.tflite"))


@pytest.fixture(scope="session")
def small(loaded: Callable[[str], LiteModel]) -> LiteModel:
    return loaded("small")


@pytest.fixture(scope="session")
def mlp(loaded: Callable[[str], LiteModel]) -> LiteModel:
    return loaded("mlp")


class Listed(list[dict[str, Array]]):
    """Samples as a data set without labels."""

    labels = None


@pytest.fixture
def images() -> Listed:
    """Inputs of ``small``."""
    rng = np.random.default_rng(7)
    return Listed({"image": rng.normal(0, 1, (1, 16, 16, 3)).astype(np.float32)} for _ in range(32))


@pytest.fixture
def features() -> Listed:
    """Inputs of ``mlp``."""
    rng = np.random.default_rng(7)
    return Listed({"features": rng.normal(0, 1, (1, 40)).astype(np.float32)} for _ in range(32))
