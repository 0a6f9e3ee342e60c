"""What is kept from one run to the next, by the hash of what it was made from."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path


def folder(namespace: str) -> Path:
    """Where a plugin keeps things, made or not: in ``QM_CACHE``, else where the system keeps caches."""
    from platformdirs import user_cache_dir

    return Path(os.environ.get("QM_CACHE") or user_cache_dir("qm")) / namespace


def key(parts: Sequence[str]) -> str:
    """The name of what was made from ``parts``: hashes and versions."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
