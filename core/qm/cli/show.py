"""``qm show``: all about one method."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qm.catalog import Catalog, Found
    from qm.plugin import Card

SUMMARY = "Describe a method: what it takes, what it offers, its options."

_BOUNDS = {"exclusiveMinimum": ">", "minimum": ">=", "exclusiveMaximum": "<", "maximum": "<="}


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.add_argument("name", metavar="NAME", help="the full name, such as onnx.ptq")
    parser.add_argument("--json", action="store_true", help="print JSON, the options as a JSON schema")


def run(args: argparse.Namespace) -> int:
    """Describe every card of that name."""
    from qm.catalog import Catalog
    from qm.cli.screen import show_json

    catalog = Catalog()
    found = _named(catalog, args.name)
    if args.json:
        described = [{**dict(_facts(f, catalog)), "options": f.card.options.model_json_schema()} for f in found]
        show_json(described[0] if len(described) == 1 else described)
        return 0
    for f in found:
        _print(f, catalog)
    return 0


def _named(catalog: Catalog, name: str) -> list[Found[Card]]:
    """The cards of that name; a loader and an exporter may share one."""
    from qm.plugin import Card

    first = catalog.find(name, Card)
    return [f for f in catalog.namespace(first.namespace) if f.card.name == first.card.name]


def _print(found: Found[Card], catalog: Catalog) -> None:
    from rich.table import Table
    from rich.text import Text

    from qm.cli.plugins import state_of
    from qm.cli.screen import show, table

    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim")
    facts.add_column(overflow="fold")
    for name, value in _facts(found, catalog):
        if name not in ("name", "summary", "lacking") and value not in (None, []):
            facts.add_row(name.replace("_", " "), _words(value))
    facts.add_row("ready", state_of(found))
    show(Text(found.plugin, style="bold"), Text(found.card.summary), "", facts)
    rows = table("option", "type", "range", "default", "help", title="Options (-o option=value)")
    for row in option_rows(found.card.options.model_json_schema()):
        rows.add_row(*row)
    show("", rows) if rows.row_count else show("", "It has no options.")


def _facts(found: Found[Card], catalog: Catalog) -> Iterator[tuple[str, Any]]:
    """Every field of the card that is plain data, sets in order."""
    from dataclasses import fields

    from qm.cli.plugins import needs_of

    yield "name", found.plugin
    yield "kind", found.card.kind
    yield "summary", found.card.summary
    yield "from", str(catalog.manager.offer(found.namespace))
    for field in fields(found.card):
        value = getattr(found.card, field.name)
        if field.name in ("name", "summary", "impl", "options", "sniff", "ready"):
            continue
        if field.name == "needs" and isinstance(value, str):
            yield "needs", needs_of(found.card)
        elif field.name == "needs":
            yield "needs_of_model", sorted(map(str, value))
        else:
            yield field.name, sorted(map(str, value)) if isinstance(value, (set, frozenset, tuple)) else value
    yield "lacking", found.lacking()


def _words(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(value) if isinstance(value, list) else str(value)


def option_rows(schema: dict[str, Any]) -> Iterator[tuple[str, str, str, str, str]]:
    """Name, type, range, default and help of each option, out of the JSON schema of its class."""
    required = schema.get("required", ())
    for name, field in schema.get("properties", {}).items():
        field = _resolved(field, schema)
        default = "required" if name in required else _value(field.get("default"))
        yield name, _type(field, schema), _range(field, schema), default, field.get("description", "")


def _resolved(field: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """The field, with what it refers to put in its place."""
    if "$ref" not in field:
        return field
    return {**schema["$defs"][field["$ref"].rsplit("/", 1)[-1]], **field}


def _variants(field: dict[str, Any], schema: dict[str, Any]) -> list[dict[str, Any]]:
    return [_resolved(v, schema) for v in field.get("anyOf", [field])]


def _type(field: dict[str, Any], schema: dict[str, Any]) -> str:
    return " or ".join(map(_type_of_one, _variants(field, schema)))


def _type_of_one(variant: dict[str, Any]) -> str:
    if "enum" in variant or "const" in variant:
        return "choice"
    name = str(variant.get("type", "any"))
    return "none" if name == "null" else name


def _range(field: dict[str, Any], schema: dict[str, Any]) -> str:
    parts = []
    for variant in _variants(field, schema):
        if "enum" in variant:
            parts.append(" | ".join(map(str, variant["enum"])))
        elif "const" in variant:
            parts.append(str(variant["const"]))
        parts += [f"{sign} {variant[key]:g}" for key, sign in _BOUNDS.items() if key in variant]
    return ", ".join(parts)


def _value(value: Any) -> str:
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)
