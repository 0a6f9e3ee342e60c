"""``qm targets``: the devices that are known, and what is known of one."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qm.target import Target

SUMMARY = "List the targets, or say what is known of one."


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.add_argument("name", metavar="NAME", nargs="?", help="a target, or a file that describes one")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Show one target, or list all of them."""
    return _one(args.name, as_json=args.json) if args.name else _all(as_json=args.json)


def _one(name: str, *, as_json: bool) -> int:
    from rich.table import Table

    from qm import target as targets
    from qm.cli.screen import show, show_json

    found = targets.find(name)
    if as_json:
        show_json(found.model_dump(mode="json"))
        return 0
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim")
    facts.add_column(overflow="fold")
    for field in type(found).model_fields:
        facts.add_row(field.replace("_", " "), _words(getattr(found, field)))
    facts.add_row("from", _origin(name))
    show(facts)
    return 0


def _origin(name: str) -> str:
    from qm import target as targets

    if name == "host":
        return "this machine, by its CPU's flags"
    return name if targets.is_path(name) else str(targets.locate(name).path)


def _words(value: Any) -> str:
    if value is None or value == {}:
        return "not known"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return "\n".join(f"{key}: {', '.join(names)}" for key, names in value.items())
    if isinstance(value, tuple):
        return ", ".join(value) or "none"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _all(*, as_json: bool) -> int:
    from qm import target as targets
    from qm.cli.screen import show, show_json, table
    from qm.errors import UsageError

    rows, broken = [], []
    for name in targets.names():
        try:
            rows.append(_row(targets.find(name), "this machine" if name == "host" else targets.locate(name).origin))
        except UsageError as e:
            broken.append({"name": name, "error": e.message, "hint": e.hint})
    if as_json:
        show_json({"targets": rows, "broken": broken})
        return 0
    listed = table("target", "from", "what it is")
    for row in rows:
        listed.add_row(*row.values())
    show(listed)
    for wrong in broken:
        show(f"broken: {wrong['error']}. {wrong['hint']}")
    return 0


def _row(found: Target, origin: str) -> dict[str, str]:
    return {"name": found.name, "from": origin, "summary": found.summary}
