"""``qm plugins``: what is installed."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qm.catalog import Catalog, Found
    from qm.manager import Offer
    from qm.plugin import Card

_WORDS = {"/": "a folder", ":": "a function"}
SUMMARY = "List the installed plugins, or with --methods what they offer."


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.add_argument("--methods", action="store_true", help="list what the plugins offer, and whether it is ready")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """List the plugins by metadata alone; their declarations are imported for ``--methods`` only."""
    return _methods(as_json=args.json) if args.methods else _plugins(as_json=args.json)


def _plugins(*, as_json: bool) -> int:
    from qm.cli.screen import show, show_json, table, write
    from qm.manager import Manager

    offers = Manager().offers()
    clashing = clashes(offers)
    if as_json:
        show_json([{**_row(o), "clash": o.name in clashing} for o in offers])
        return 0
    if not offers:
        write("no plugin is installed\nInstall one: pip install 'quantized-model[onnx]'\n")
        return 0
    rows = table("name", "distribution", "version", "module")
    for offer in offers:
        rows.add_row(*_row(offer).values())
    show(rows)
    for name, claims in clashing.items():
        last = claims[-1].distribution
        write(
            f"clash: {name!r} is claimed by {' and by '.join(map(str, claims))}; uninstall one: pip uninstall {last}\n"
        )
    return 0


def clashes(offers: Iterable[Offer]) -> dict[str, list[Offer]]:
    """The names that more than one distribution claims, with their claims."""
    claims: dict[str, list[Offer]] = {}
    for offer in offers:
        claims.setdefault(offer.name, []).append(offer)
    return {name: those for name, those in claims.items() if len(those) > 1}


def _row(offer: Offer) -> dict[str, str]:
    return {
        "name": offer.name,
        "distribution": offer.distribution,
        "version": offer.version,
        "module": offer.module,
    }


def _methods(*, as_json: bool) -> int:
    from qm.catalog import Catalog
    from qm.cli.screen import show, show_json, table

    catalog = Catalog()
    found = _ordered(catalog)
    if as_json:
        broken = [{"plugin": name, "error": e.message, "hint": e.hint} for name, e in catalog.broken.items()]
        show_json({"methods": [_facts(f) for f in found], "broken": broken})
        return 0
    rows = table("method", "kind", "offers", "needs", "ready")
    for f in found:
        rows.add_row(f.plugin, f.card.kind, offers_of(f.card), needs_of(f.card), state_of(f))
    show(rows)
    for error in catalog.broken.values():
        show(f"broken: {error.message}; see qm doctor")
    show("", "Methods are quantizers and planners, named with -p; the rest is found by the model's file.")
    return 0


def _ordered(catalog: Catalog) -> list[Found[Card]]:
    """Methods first, then what is used without being named."""
    from qm.plugin import Benchmark, Card, Exporter, Loader, Planner, Quantizer

    order = (Quantizer.kind, Planner.kind, Loader.kind, Exporter.kind, Benchmark.kind)
    place = {kind: number for number, kind in enumerate(order)}
    return sorted(catalog.all(Card), key=lambda f: (place.get(f.card.kind, len(order)), f.namespace))


def _facts(found: Found[Card]) -> dict[str, Any]:
    return {
        "name": found.plugin,
        "kind": found.card.kind,
        "summary": found.card.summary,
        "schemes": sorted(getattr(found.card, "schemes", ())),
        "needs": needs_of(found.card),
        "lacking": found.lacking(),
        "ready": found.obstacle() is None,
    }


def offers_of(card: Card) -> str:
    """What a card offers, in a few words: schemes, the default first, or formats and suffixes."""
    from qm.plugin import Benchmark, Exporter, Loader, Quantizer

    match card:
        case Quantizer():
            return ", ".join([card.default, *sorted(card.schemes - {card.default})])
        case Loader():
            return f"{_listed(_WORDS.get(s, s) for s in card.suffixes)} to {card.gives}"
        case Exporter():
            return f"{_listed(card.takes)} to {card.suffix}"
        case Benchmark():
            return f"runs {_listed(card.takes)}"
    return "recipes"


def needs_of(card: Card) -> str:
    """What samples a card needs."""
    from qm.plugin import Needs, Planner, Quantizer
    from qm.scheme import Scheme

    if isinstance(card, Planner):
        return "samples" if card.needs_data else "nothing"
    if not isinstance(card, Quantizer) or card.needs == Needs.NOTHING:
        return "nothing"
    if card.needs != Needs.RANGES:
        return "samples with labels" if card.needs == Needs.LABELS else "samples"
    free = sorted(s for s in card.schemes if not card.needs_data(Scheme.parse(s)))
    return f"samples, but for {_listed(free)}" if free else "samples"


def state_of(found: Found[Card]) -> str:
    """Whether the card can be used here, and what it lacks."""
    if lacking := found.lacking():
        return f"lacks {', '.join(lacking)}"
    obstacle = found.obstacle()
    return f"not ready: {obstacle.message}" if obstacle else "ready"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
