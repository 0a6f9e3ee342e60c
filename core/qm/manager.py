"""Find plugins, load one, say whose fault it is."""

from __future__ import annotations

import difflib
import importlib.metadata
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import pluggy

from qm import hookspec
from qm.errors import PluginError, QmError, UsageError
from qm.job import J, R
from qm.plugin import GROUP, Card, Step, hookimpl

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Offer:
    """An entry point of the group, as metadata tells it; nothing is imported for it."""

    name: str
    module: str
    distribution: str
    version: str
    point: importlib.metadata.EntryPoint

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}"


@contextmanager
def blame(plugin: str, deed: str) -> Iterator[None]:
    """Give an exception that passes here the plugin's name; what already says what it means passes unchanged."""
    try:
        yield
    except QmError:
        raise
    except Exception as e:
        text = str(e) or "no message"
        first = text.splitlines()[0]
        raise PluginError(
            plugin, f"{deed} failed: {type(e).__name__}: {first}", hint="Add --traceback to see where."
        ) from e


class _Pluggy(pluggy.PluginManager):
    """Looks at names that begin with ``qm_`` only, so that odd module attributes are never touched."""

    def parse_hookimpl_opts(self, plugin: Any, name: str) -> pluggy.HookimplOpts | None:
        return super().parse_hookimpl_opts(plugin, name) if name.startswith("qm_") else None


class _Core:
    """The core's own implementation of each verb, the last to be asked: it does the step."""

    @staticmethod
    def _do(step: Step[J, R]) -> R:
        return step.call()

    @hookimpl(trylast=True)
    def qm_load(self, step: Step[Any, Any]) -> Any:
        return self._do(step)

    @hookimpl(trylast=True)
    def qm_plan(self, step: Step[Any, Any]) -> Any:
        return self._do(step)

    @hookimpl(trylast=True)
    def qm_quantize(self, step: Step[Any, Any]) -> Any:
        return self._do(step)

    @hookimpl(trylast=True)
    def qm_export(self, step: Step[Any, Any]) -> Any:
        return self._do(step)

    @hookimpl(trylast=True)
    def qm_benchmark(self, step: Step[Any, Any]) -> Any:
        return self._do(step)


class Manager:
    """The installed plugins. Names in ``block`` are treated as not installed (``QM_BLOCK``, separated by commas)."""

    def __init__(self, *, block: Iterable[str] = ()) -> None:
        self._pluggy = _Pluggy("qm")
        self._pluggy.add_hookspecs(hookspec)
        self._pluggy.register(_Core(), "qm")
        self._cards: dict[str, tuple[Card, ...]] = {}
        blocked = {*block, *_listed("QM_BLOCK")}
        self._offers: dict[str, list[Offer]] = {}
        for point in importlib.metadata.entry_points(group=GROUP):
            if point.name not in blocked:
                offers = self._offers.setdefault(point.name, [])
                offer = _offer(point)
                if all(str(offer) != str(o) for o in offers):
                    offers.append(offer)

    def offers(self) -> list[Offer]:
        """Every entry point of the group, by name, those that clash included."""
        return [offer for name in sorted(self._offers) for offer in self._offers[name]]

    def names(self) -> list[str]:
        """Every namespace."""
        return sorted(self._offers)

    def offer(self, name: str) -> Offer:
        """The one entry point of that name.

        Raises:
            UsageError: there is none, or two distributions claim the name.
        """
        offers = self._offers.get(name)
        if not offers:
            near = difflib.get_close_matches(name, self._offers, 1)
            raise UsageError(
                f"there is no plugin {name!r}",
                hint=(f"Did you mean {near[0]!r}? " if near else "")
                + f"Installed are: {', '.join(self.names()) or 'none'}.",
            )
        if len(offers) > 1:
            raise UsageError(
                f"the plugin name {name!r} is claimed by {' and by '.join(str(o) for o in offers)}",
                hint=f"Uninstall one of them: pip uninstall {offers[-1].distribution}",
            )
        return offers[0]

    def cards(self, name: str) -> tuple[Card, ...]:
        """The cards of one namespace; imports its declaration module the first time.

        Raises:
            UsageError: there is no such plugin, or two claim the name.
            PluginError: it cannot be imported, or what it declares is not a list of cards with names of their own.
        """
        if name not in self._cards:
            offer = self.offer(name)
            with blame(name, f"importing {offer.module} (of {offer})"):
                module = offer.point.load()
            with blame(name, "registering its hooks"):
                self._register(module, name)
            with blame(name, "qm_cards"):
                hook = getattr(module, "qm_cards", None)
                declared = tuple(hook()) if hook is not None else ()
            self._cards[name] = _checked(name, declared)
        return self._cards[name]

    def _register(self, module: Any, name: str) -> None:
        self._pluggy.register(module, name)
        try:
            self._pluggy.check_pending()
        except pluggy.PluginValidationError as e:
            self._pluggy.unregister(module)
            raise PluginError(name, str(e), hint="The hooks are listed in qm.hookspec.") from e

    def activate(self, names: Iterable[str]) -> None:
        """Load plugins for their hooks' sake."""
        for name in names:
            self.cards(name)

    def perform(self, verb: str, step: Step[J, R], returns: type[T]) -> T:
        """Send a step through the hook ``qm_<verb>``; plugins named in ``QM_WITH`` take part.

        Raises:
            PluginError: the plugin raised, or returned something else than ``returns``.
        """
        self.activate(_listed("QM_WITH"))
        with blame(step.plugin, verb):
            result = getattr(self._pluggy.hook, f"qm_{verb}")(step=step)
        if not isinstance(result, returns):
            raise PluginError(step.plugin, f"{verb} returned {type(result).__name__}, not {returns.__name__}")
        return result


def _offer(point: importlib.metadata.EntryPoint) -> Offer:
    dist = point.dist
    name, version = (dist.name, dist.version) if dist is not None else ("unknown", "?")
    return Offer(name=point.name, module=point.value, distribution=name, version=version, point=point)


def _checked(plugin: str, declared: tuple[Any, ...]) -> tuple[Card, ...]:
    seen: set[tuple[str, str]] = set()
    for card in declared:
        if not isinstance(card, Card):
            raise PluginError(plugin, f"qm_cards gave {type(card).__name__}, which is not a card")
        if (card.kind, card.name) in seen:
            raise PluginError(plugin, f"it declares two {card.kind}s named {card.name!r}")
        seen.add((card.kind, card.name))
    return declared


def _listed(variable: str) -> list[str]:
    return [name.strip() for name in os.environ.get(variable, "").split(",") if name.strip()]
