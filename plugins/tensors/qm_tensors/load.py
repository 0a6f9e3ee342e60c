"""Opening a ``.safetensors`` file."""

from __future__ import annotations

from qm.plugin import LoadJob
from qm_tensors import header
from qm_tensors.model import TensorsModel


def load(job: LoadJob) -> TensorsModel:
    """The file's head; its tensors stay where they are."""
    return TensorsModel(job.path.absolute(), header.read(job.path))
