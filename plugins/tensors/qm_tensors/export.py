"""Writing a ``.safetensors`` file."""

from __future__ import annotations

import shutil

from qm.plugin import Artifact, ExportJob, UsageError
from qm_tensors.model import TensorsModel


def export(job: ExportJob) -> Artifact:
    """Copy the file that the tensors lie in: a run that is cut off from here on can go on from it."""
    if not isinstance(job.model, TensorsModel):
        raise UsageError(
            f"{job.model!r} is not a file of weights", hint="Export it with the exporter of its own format."
        )
    shutil.copyfile(job.model.path, job.path)
    return Artifact(path=job.path, format="safetensors")
