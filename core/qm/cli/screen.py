"""What commands print: tables as wide as the terminal, unwrapped where the output goes to a file or a pipe."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

UNWRAPPED = 400


def table(*columns: str, right: tuple[str, ...] = (), title: str = "") -> Table:
    """An empty table with these columns; those in ``right`` hold numbers."""
    from rich import box
    from rich.table import Table

    made = Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        title=title or None,
        title_justify="left",
        title_style="bold",
    )
    for name in columns:
        made.add_column(name, justify="right" if name in right else "left", overflow="fold")
    return made


def show(*parts: RenderableType) -> None:
    """Print the parts. Words between square brackets are left as they are: layer names hold such."""
    from rich.console import Console

    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else UNWRAPPED
    console = Console(markup=False, highlight=False, emoji=False, width=width)
    with console.capture() as captured:
        for part in parts:
            console.print(part)
    lines = captured.get().splitlines()
    write("".join(line.rstrip() + "\n" for line in lines))


def show_json(value: Any) -> None:
    """Print the value as JSON, and nothing else."""
    write(json.dumps(value, indent=2) + "\n")


def write(text: str) -> None:
    """Write to standard output at once."""
    sys.stdout.write(text)
    sys.stdout.flush()
