"""What a method worked out that does not depend on the plan, kept for the next plan that is tried."""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Self, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

MOST_BYTES = 1 << 30


@dataclass
class _Kept:
    """Values by key, the one used last at the end; those used longest ago go where room is short."""

    most_bytes: int
    values: dict[Hashable, tuple[Any, int]] = field(default_factory=dict)
    nbytes: int = 0

    def get(self, key: Hashable) -> tuple[Any, int] | None:
        found = self.values.pop(key, None)
        if found is not None:
            self.values[key] = found
        return found

    def put(self, key: Hashable, value: Any) -> None:
        size = nbytes(value)
        if size > self.most_bytes:
            return
        self.values[key] = value, size
        self.nbytes += size
        while self.nbytes > self.most_bytes:
            self.nbytes -= self.values.pop(next(iter(self.values)))[1]


class Memo:
    """Values by key, for as long as the trials of a run last, and never more than ``most_bytes`` of them.

    It belongs to one method, one model and one set of samples. What else a value depends on (an option, the target, a
    layer's scheme) has its place in the key, so that a job with the memo gives the same bytes as one without. Values
    are handed out again as they are: they must not be changed.
    """

    def __init__(self, *, most_bytes: int = MOST_BYTES) -> None:
        self._kept = _Kept(most_bytes)
        self._owner = ""

    @classmethod
    def forgetful(cls) -> Self:
        """One without room, for a job that no other follows."""
        return cls(most_bytes=0)

    def __repr__(self) -> str:
        return f"<Memo of {len(self._kept.values)} values, {self._kept.nbytes:,} bytes>"

    @property
    def remembers(self) -> bool:
        """Whether anything that is worked out is kept."""
        return self._kept.most_bytes > 0

    def part(self, owner: str) -> Memo:
        """The same room, under keys of the owner's own."""
        made = Memo()
        made._kept, made._owner = self._kept, owner
        return made

    def once(self, key: Hashable, compute: Callable[[], V]) -> V:
        """The value of the key, computed where it is not known."""
        return self.many([key], lambda _: {key: compute()})[key]

    def many(self, keys: Iterable[K], compute: Callable[[Sequence[K]], Mapping[K, V]]) -> dict[K, V]:
        """The values of the keys, in their order; ``compute`` is asked once for all that are not known."""
        wanted = list(dict.fromkeys(keys))
        known = {key: found[0] for key in wanted if (found := self._kept.get((self._owner, key))) is not None}
        missing = [key for key in wanted if key not in known]
        if missing:
            made = compute(missing)
            for key in missing:
                known[key] = made[key]
                self._kept.put((self._owner, key), made[key])
        return {key: known[key] for key in wanted}


def nbytes(value: object) -> int:
    """Bytes that a value takes, as far as it and what it holds tell by their own ``nbytes`` or length."""
    told = getattr(value, "nbytes", None)
    if isinstance(told, int):
        return told
    if isinstance(value, Mapping):
        return sum(map(nbytes, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(nbytes, value))
    if is_dataclass(value) and not isinstance(value, type):
        return sum(nbytes(getattr(value, f.name)) for f in fields(value))
    return sys.getsizeof(value)
