"""Data sets: whatever the user named, as samples that a model can be fed."""

from qm.data.opening import open_data
from qm.data.samples import Samples, batches, suspicion

__all__ = ["Samples", "batches", "open_data", "suspicion"]
