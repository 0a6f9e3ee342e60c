"""Goals held against reports, and what came of it in the formats that continuous integration reads."""

from qm.check.goal import Answer, Goal, Judged
from qm.check.outcome import Checked, check, failure

__all__ = ["Answer", "Checked", "Goal", "Judged", "check", "failure"]
