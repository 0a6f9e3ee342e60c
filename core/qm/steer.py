"""What the target says about a route: the scheme where none is asked for, and what would not run there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from qm.card import Exporter, Quantizer
from qm.catalog import Catalog
from qm.errors import UsageError
from qm.scheme import Scheme
from qm.target import Target


def default_scheme(card: Quantizer, target: Target | None, *, has_data: bool) -> Scheme:
    """The card's own default, unless the target is known not to run it: then the first of the target's that it offers.

    One that needs samples is the last choice where there are none, so that it is samples that are asked for.
    """
    own = Scheme.parse(card.default if has_data else card.default_without_data or card.default)
    if target is None or target.runs(own) is not False:
        return own
    common = [s for text in target.schemes or () if (s := Scheme.parse(text)) in offered([card])]
    ready = [s for s in common if has_data or not card.needs_data(s)]
    return next(iter([*ready, *common]), own)


def offered(cards: Iterable[Quantizer], target: Target | None = None) -> set[Scheme]:
    """The schemes that any of the cards offers, those left out that the target is known not to run."""
    every = {Scheme.parse(text) for card in cards for text in card.schemes}
    return every if target is None else {s for s in every if target.runs(s) is not False}


def scheme_problems(asked: Iterable[Scheme], cards: list[Quantizer], target: Target | None) -> Iterator[UsageError]:
    """Schemes that the target is known not to run; float is for the audit, as some of a model often stays in it."""
    if target is None:
        return
    for scheme in sorted(asked, key=str):
        if scheme.is_float or target.runs(scheme) is not False:
            continue
        fitting = [text for text in target.schemes or () if Scheme.parse(text) in offered(cards)]
        way_out = f"Ask for --scheme {fitting[0]}" if fitting else "Take another method, see qm plugins --methods"
        yield UsageError(
            f"scheme {str(scheme)!r} does not run on {target.name}, which runs {', '.join(target.schemes or ())}",
            hint=f"{way_out}, or name another --target.",
        )


def format_problem(exporter: str, fmt: str, target: Target, catalog: Catalog) -> UsageError | None:
    """What to say of a file of a format that the target is known not to open."""
    if target.opens(fmt) is not False:
        return None
    formats = target.formats or ()
    able = [q.plugin for q in catalog.all(Quantizer) if _leads_to(q.card, formats, catalog)]
    methods = f"Take a method whose file it opens, such as {able[0]}" if able else "See qm plugins --methods"
    return UsageError(
        f"{target.name} opens {' and '.join(formats)} files, and {exporter} writes {fmt}",
        hint=f"{methods}, or name another --target.",
    )


def _leads_to(card: Quantizer, formats: Iterable[str], catalog: Catalog) -> bool:
    made = {card.gives} if card.gives else set(card.takes)
    writers = (e.card for e in catalog.all(Exporter) if not e.card.float_only)
    return any(writer.gives in set(formats) and made & writer.takes for writer in writers)
