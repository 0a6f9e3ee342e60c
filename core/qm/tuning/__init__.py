"""The search for the smallest model within an allowed loss, over every installed method and its options."""

from qm.tuning.goal import Goal, Verdict
from qm.tuning.outcome import Best, Point, Sight, Tuning
from qm.tuning.tuner import EXECUTORS, Order, Tuner, Watch

__all__ = ["EXECUTORS", "Best", "Goal", "Order", "Point", "Sight", "Tuner", "Tuning", "Verdict", "Watch"]
