"""Ternary weights for qm."""
