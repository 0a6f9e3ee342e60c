"""HTML whose every text is escaped unless it is HTML already."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Any


class Html(str):
    """Text that is HTML. Any other text is escaped where it meets this."""


VOID = frozenset({"br", "meta"})


def join(*parts: str | Iterable[str]) -> Html:
    """The parts, one after the other."""
    flat = (p for part in parts for p in ([part] if isinstance(part, str) else part))
    return Html("".join(p if isinstance(p, Html) else html.escape(p, quote=False) for p in flat))


def tag(name: str, /, *parts: str | Iterable[str], **attributes: Any) -> Html:
    """An element. ``class_`` is the attribute ``class``, ``aria_label`` is ``aria-label``; None leaves one out."""
    words = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{words}>" if name in VOID else f"<{name}{words}>{join(*parts)}</{name}>")


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Sequence[int] = (), class_: str = "") -> Html:
    """A table that scrolls sideways where it must; the columns counted in ``numbers`` are set to the right."""

    def cells(name: str, row: Sequence[str]) -> Html:
        return tag("tr", (tag(name, cell, class_="number" if i in numbers else None) for i, cell in enumerate(row)))

    body = tag("tbody", (cells("td", row) for row in rows))
    return tag("div", tag("table", tag("thead", cells("th", head)), body, class_=class_ or None), class_="scroll")


def details(summary: str, *parts: str | Iterable[str]) -> Html:
    """Parts that are shown when asked for."""
    return tag("details", tag("summary", summary), *parts)


def section(title: str, *parts: str | Iterable[str]) -> Html:
    """A titled part of the page; nothing where it would be empty."""
    inside = join(*parts)
    return tag("section", tag("h2", title), inside) if inside else Html()


def paragraph(*parts: str | Iterable[str], class_: str | None = None) -> Html:
    """A paragraph."""
    return tag("p", *parts, class_=class_)


def code(text: str) -> Html:
    """Lines to copy."""
    return tag("pre", tag("code", text))
