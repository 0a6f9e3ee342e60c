"""Cards by name and by format."""

from __future__ import annotations

import difflib
import importlib.metadata
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from qm import source
from qm.errors import NotReady, PluginError, QmError, UsageError
from qm.manager import Manager
from qm.plugin import Benchmark, Card, Exporter, Loader, Options, Planner, Quantizer
from qm.strict import complaint

C = TypeVar("C", bound=Card)


@dataclass(frozen=True)
class Found(Generic[C]):
    """A card with the namespace it came from."""

    namespace: str
    card: C

    @property
    def plugin(self) -> str:
        """The full name, such as ``onnx.ptq``."""
        return f"{self.namespace}.{self.card.name}"

    def options(self, values: dict[str, Any]) -> Options:
        """The card's own options, filled with what the user wrote.

        Raises:
            UsageError: an option does not exist, or its value is wrong.
        """
        known = self.card.options.model_fields
        for name in values:
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                raise UsageError(
                    f"{self.plugin} has no option {name!r}",
                    hint=(f"Did you mean {near[0]!r}? " if near else "")
                    + (f"Its options are: {', '.join(known)}." if known else "It has no options."),
                )
        try:
            return self.card.options.model_validate(values)
        except ValidationError as e:
            raise UsageError(
                f"{self.plugin} option {complaint(e)}, not {e.errors()[0]['input']!r}",
                hint=f"See qm show {self.plugin}.",
            ) from e

    def lacking(self) -> list[str]:
        """The required distributions that are not installed."""
        return [r for r in self.card.requires if not any(_installed(d.strip()) for d in r.split("|"))]

    def check_ready(self) -> None:
        """Raise NotReady where a required distribution is not installed, or the card's own check says so.

        Raises:
            PluginError: the check itself failed.
        """
        if lacking := self.lacking():
            names = ", ".join(lacking)
            raise NotReady(
                f"{self.plugin} needs {names}, which is not installed",
                hint=f"Install it: pip install 'quantized-model[{self.card.extra or self.namespace}]'",
            )
        try:
            self.card.check_ready()
        except QmError:
            raise
        except Exception as e:
            raise PluginError(self.plugin, f"asking whether it is ready failed: {type(e).__name__}: {e}") from e

    def obstacle(self) -> QmError | None:
        """Why it is not ready; None where it is."""
        try:
            self.check_ready()
        except QmError as e:
            return e
        return None


class Catalog:
    """Every card of every plugin, each plugin's declaration module imported only when it is asked for."""

    def __init__(self, manager: Manager | None = None) -> None:
        self.manager = manager or Manager()
        self.broken: dict[str, PluginError] = {}

    def find(self, name: str, kind: type[C]) -> Found[C]:
        """The card of that full name.

        Raises:
            UsageError: there is none of that kind.
            PluginError: its plugin cannot be loaded.
        """
        namespace, dot, short = name.partition(".")
        if not dot:
            raise UsageError(f"{name!r} names a plugin, not one of its methods", hint=self._methods(name, kind))
        if namespace not in self.manager.names():
            near = difflib.get_close_matches(name, [f.plugin for f in self.all(kind)], 1)
            raise UsageError(
                f"there is no method {name!r}",
                hint=(f"Did you mean {near[0]!r}? " if near else "") + "See qm plugins --methods.",
            )
        mine = [c for c in self.manager.cards(namespace) if isinstance(c, kind)]
        for card in mine:
            if card.name == short:
                return Found(namespace, card)
        near = difflib.get_close_matches(short, [c.name for c in mine], 1)
        raise UsageError(
            f"there is no method {name!r}",
            hint=f"Did you mean '{namespace}.{near[0]}'?" if near else self._methods(namespace, kind),
        )

    def _methods(self, namespace: str, kind: type[Card]) -> str:
        if namespace not in self.manager.names():
            near = difflib.get_close_matches(namespace, [f.card.name for f in self.all(kind)], 1)
            full = [f.plugin for f in self.all(kind) if near and f.card.name == near[0]]
            return f"Did you mean {full[0]!r}?" if full else "See qm plugins --methods."
        names = [f"{namespace}.{c.name}" for c in self.manager.cards(namespace) if isinstance(c, kind)]
        return f"Name one of: {', '.join(names)}." if names else f"{namespace} offers none."

    def namespace(self, name: str) -> list[Found[Card]]:
        """All cards of one plugin."""
        return [Found(name, card) for card in self.manager.cards(name)]

    def all(self, kind: type[C]) -> Iterator[Found[C]]:
        """Every card of a kind; a plugin that is broken is noted in ``broken`` and passed over."""
        for name in self.manager.names():
            try:
                cards = self.manager.cards(name)
            except PluginError as e:
                self.broken[name] = e
                continue
            except UsageError as e:  # two distributions claim the name: that hurts only those who call it
                self.broken[name] = PluginError(name, e.message, hint=e.hint)
                continue
            for card in cards:
                if isinstance(card, kind):
                    yield Found(name, card)

    def loader(self, path: Path, *, gives: frozenset[str] | set[str] | None = None) -> Found[Loader]:
        """The loader for a path, by its suffix, its content, and the formats in ``gives`` where that is told.

        Raises:
            UsageError: no loader takes it.
        """
        suffix = source.suffix(path)
        able = [f for f in self.all(Loader) if suffix in f.card.suffixes]
        if not able:
            known = sorted({s for f in self.all(Loader) for s in f.card.suffixes if s[0] == "."})
            what = {source.FOLDER: "the folder", source.FUNCTION: "the function"}.get(suffix, "the file")
            raise UsageError(
                f"no installed plugin loads {what} {str(path)!r}", hint=f"Known suffixes are: {', '.join(known)}."
            )
        sure = [f for f in able if f.card.sniff is None or f.card.sniff(path)]
        if not sure and suffix == source.FOLDER:
            raise UsageError(
                f"no installed plugin loads the folder {str(path)!r}", hint="Name the file of the model in it."
            )
        sure = sure or able  # What is wrong with the file is for a loader to say.
        fitting = [f for f in sure if gives is None or f.card.gives in gives]
        return (fitting or sure)[0]

    def exporter(self, fmt: str, suffix: str | None = None) -> Found[Exporter]:
        """The exporter for models of a format, writing ``suffix`` where that is told.

        Raises:
            UsageError: there is none.
        """
        able = [f for f in self.all(Exporter) if fmt in f.card.takes]
        for found in able:
            if suffix is None or found.card.suffix == suffix.lower():
                return found
        if able:
            raise UsageError(
                f"a model of format {fmt!r} cannot be written as {suffix!r}",
                hint=f"Name a file that ends in {' or '.join(sorted({f.card.suffix for f in able}))}.",
            )
        raise UsageError(f"no installed plugin writes models of format {fmt!r}", hint="See qm plugins --methods.")

    def bridges(self, fmt: str, gives: AbstractSet[str]) -> Iterator[tuple[Found[Exporter], Found[Loader]]]:
        """Ways from a format to one of ``gives``: what writes it, and what loads that."""
        loaders = list(self.all(Loader))
        for found in self.all(Exporter):
            card = found.card
            if fmt in card.takes and card.gives in gives and card.gives != fmt:
                readers = (f for f in loaders if f.card.gives == card.gives and card.suffix in f.card.suffixes)
                if (reader := next(readers, None)) is not None:
                    yield found, reader

    def benchmark(self, fmt: str) -> Found[Benchmark]:
        """The runtime that opens artifacts of a format.

        Raises:
            UsageError: there is none.
        """
        for found in self.all(Benchmark):
            if fmt in found.card.takes:
                return found
        raise UsageError(f"no installed plugin runs files of format {fmt!r}", hint="See qm plugins --methods.")

    def method(self, name: str) -> Found[Quantizer] | Found[Planner]:
        """The quantizer or planner of that full name; raises as ``find`` does."""
        try:
            return self.find(name, Quantizer)
        except UsageError as complaint_about_methods:
            try:
                other = self.find(name, Card)
            except UsageError:
                raise complaint_about_methods from None
        if isinstance(other.card, Planner):
            return Found(other.namespace, other.card)
        raise UsageError(
            f"{name} is {_article(other.card.kind)}, not a method",
            hint=self._methods(other.namespace, Quantizer) + " It is used without being named.",
        )


def _article(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"


def _installed(distribution: str) -> bool:
    # A package's folder can exist without the package (plugins/torch/): ask the metadata, never the import system.
    try:
        importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
