"""What is asked of a run."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qm.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked of a run. ``data`` is whatever ``qm.data.open_data`` takes; ``time_s`` bounds the benchmark.

    ``load`` is what the loader is told. ``page`` asks for the report as a page to look at too.
    """

    model: Path
    recipe: Recipe
    data: Any = None
    to: Path | None = None
    force: bool = False
    benchmark: bool = False
    threads: int = 1
    time_s: float = 20.0
    command: str = ""
    load: Mapping[str, Any] = field(default_factory=dict)
    page: bool = False

    def again(self) -> str:
        """The command that asks for the same, to build the next one from."""
        words = ["qm", "quantize", str(self.model), *_options(self.load)]
        for stage in self.recipe.stages:
            words += ["-p", stage.plugin, *_options(stage.options)]
        if isinstance(self.data, str | Path):
            words += ["--data", str(self.data)]
        return shlex.join(words)


def _options(told: Mapping[str, Any]) -> Iterator[str]:
    return (f"-o{name}={value}" for name, value in told.items())
