"""Memory that this process takes at its worst, above what it held at a chosen moment."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Memory:
    """A baseline, in bytes resident."""

    baseline_bytes: int

    @classmethod
    def now(cls) -> Memory:
        """The baseline of this moment; where the system can, the peak so far is forgotten."""
        # Where it fails the peak of the imports counts too, which is more than the truth, never less.
        with suppress(OSError):
            _CLEAR_REFS.write_text("5", encoding="ascii")
        return cls(psutil.Process().memory_info().rss)

    def peak_bytes(self) -> int:
        """Bytes resident at the worst moment since the baseline, the baseline taken off."""
        return max(0, _peak_resident_bytes() - self.baseline_bytes)


def _peak_resident_bytes() -> int:
    # getrusage would do on Linux too, were it not that a child inherits the peak of its parent there.
    try:
        for line in _STATUS.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    info = psutil.Process().memory_info()
    if sys.platform == "win32":
        return int(info.peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return max(int(info.rss), peak if sys.platform == "darwin" else peak * 1024)
