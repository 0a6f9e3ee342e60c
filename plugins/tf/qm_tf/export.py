"""Writing a .tflite file: the same bytes for the same model."""

from __future__ import annotations

from qm.plugin import Artifact, ExportJob, UsageError
from qm_tf.model import LiteModel


def export(job: ExportJob) -> Artifact:
    """Write the model to ``job.path``."""
    if not isinstance(job.model, LiteModel):
        raise UsageError(f"{job.model!r} is no LiteRT model", hint="Export it with the exporter of its own format.")
    job.path.write_bytes(job.model.content)
    return Artifact(path=job.path, format="tflite")
