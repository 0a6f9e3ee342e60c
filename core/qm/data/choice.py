"""Which of the arrays at hand goes to which input of the model, and which one holds the labels."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from qm.errors import UsageError
from qm.types import TensorSpec

LABELS = ("y", "labels")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Array names by input name, the array with the labels, and what is worth a note."""

    inputs: Mapping[str, str]
    labels: str | None = None
    notes: list[str] = field(default_factory=list)


def choose(available: Sequence[str], inputs: Sequence[TensorSpec], where: str, *, hint: str = "") -> Choice:
    """The arrays named as the inputs, or the only one that is no labels where the model has one input.

    Raises:
        UsageError: an input is left without an array.
    """
    wanted = [spec.name for spec in inputs]
    labels = next((name for name in LABELS if name in available and name not in wanted), None)
    if all(name in available for name in wanted):
        return Choice(inputs={name: name for name in wanted}, labels=labels)
    others = [name for name in available if name not in LABELS]
    if len(wanted) == 1 and len(others) == 1:
        note = f"took array {others[0]!r} as input {wanted[0]!r}"
        return Choice(inputs={wanted[0]: others[0]}, labels=labels, notes=[note])
    raise _lacking(available, wanted, where, hint)


def pick(names: Sequence[str], available: Sequence[str], inputs: Sequence[TensorSpec], where: str) -> Choice:
    """The arrays that the user picked: by name where they are named as the inputs, else in order; labels last.

    Raises:
        UsageError: a name is not there, or there are too few or too many.
    """
    for name in names:
        if name not in available:
            near = difflib.get_close_matches(name, available, 1)
            guess = f"Did you mean {near[0]!r}? " if near else ""
            raise UsageError(f"{where} has no array {name!r}", hint=f"{guess}It has {_list(available)}.")
    wanted = [spec.name for spec in inputs]
    if set(wanted) <= set(names):
        rest = [name for name in names if name not in wanted]
        chosen = {name: name for name in wanted}
    else:
        rest = list(names[len(wanted) :])
        chosen = dict(zip(wanted, names, strict=False))
    if len(chosen) < len(wanted) or len(rest) > 1:
        raise UsageError(
            f"{len(names)} arrays were picked of {where} for a model of {len(wanted)} "
            f"input{'s' if len(wanted) > 1 else ''}: {_list(names)}",
            hint=f"Pick one for each of {_list(wanted)}, then at most one with labels.",
        )
    notes = [f"took array {array!r} as input {name!r}" for name, array in chosen.items() if name != array]
    return Choice(inputs=chosen, labels=rest[0] if rest else None, notes=notes)


def _lacking(available: Sequence[str], wanted: Sequence[str], where: str, hint: str) -> UsageError:
    missing = [name for name in wanted if name not in available]
    near = {name: difflib.get_close_matches(name, available, 1) for name in missing}
    guesses = [f"{found[0]!r} for {name!r}" for name, found in near.items() if found]
    guess = f"Did you mean {', '.join(guesses)}? " if guesses else ""
    return UsageError(
        f"{where} has no array for input {_list(missing)}; it has {_list(available)}",
        hint=guess + (hint or f"Name the arrays as the model's inputs: {_list(wanted)}."),
    )


def _list(names: Sequence[str]) -> str:
    shown = [repr(name) for name in names[:12]]
    if len(names) > len(shown):
        shown.append(f"{len(names) - len(shown)} more")
    return ", ".join(shown) or "none"
