"""Ranges that travel with a program, of tensors that stay in float but where a compiler needs to know theirs."""

from __future__ import annotations

from torch.fx import Node

_KEY = "qm_range"
"""An entry of what a node's user may keep in it: that survives being exported again, and being saved."""


def write(node: Node, low: float, high: float) -> None:
    """Note the range of a tensor."""
    node.meta["custom"] = {**(node.meta.get("custom") or {}), _KEY: f"{low.hex()} {high.hex()}"}


def read(node: Node) -> tuple[float, float] | None:
    """The range noted, None where there is none."""
    text = (node.meta.get("custom") or {}).get(_KEY)
    if not text:
        return None
    low, high = (float.fromhex(part) for part in text.split())
    return low, high
