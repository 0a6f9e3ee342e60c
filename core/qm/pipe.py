"""Messages between a process and its own child: a length, then a pickle."""

from __future__ import annotations

import pickle
import struct
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from qm.errors import QmError, RouteError
from qm.types import Artifact, Cache, TensorSpec

_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a child is to open, by the full names of its cards."""

    artifact: Artifact
    benchmark: str
    loader: str | None
    threads: int
    cache: Cache = "hot"

    @property
    def name(self) -> str:
        """The artifact's file name, in quotes."""
        return repr(self.artifact.path.name)


@dataclass(frozen=True, kw_only=True)
class Opened:
    """What a child says once its artifact is open."""

    runtime: str
    inputs: tuple[TensorSpec, ...]
    load_s: float
    evict_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Timed:
    """A block of runs: seconds of each on the wall's clock, and processor seconds of all of them together."""

    seconds: list[float]
    cpu_s: float


@dataclass(frozen=True, kw_only=True)
class Failure:
    """An exception on its way to the parent: the nearest class of ``qm.errors``, what it holds, where it came from."""

    kind: type[QmError]
    state: Mapping[str, str]
    trace: str

    @classmethod
    def of(cls, error: QmError) -> Failure:
        """The failure that the parent can raise again, whatever it can import."""
        ours = (c for c in type(error).__mro__ if c.__module__ == QmError.__module__ and c is not RouteError)
        kept = ("message", "hint", "plugin")
        state = {name: str(value) for name, value in vars(error).items() if name in kept}
        return cls(kind=next(ours), state=state, trace="".join(traceback.format_exception(error)))

    def error(self) -> QmError:
        """The exception again, the child's traceback as its note."""
        error = self.kind.__new__(self.kind, self.state["message"])
        vars(error).update(self.state)
        error.add_note(f"In the child process:\n{self.trace}")
        return error


def send(stream: BinaryIO, value: Any) -> None:
    """Write one message, and let it go at once."""
    data = pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
    stream.write(_LENGTH.pack(len(data)))
    stream.write(data)
    stream.flush()


def receive(stream: BinaryIO) -> Any:
    """Wait for one message.

    Raises:
        EOFError: the other end is gone.
    """
    header = stream.read(_LENGTH.size)
    if len(header) < _LENGTH.size:
        raise EOFError
    (length,) = _LENGTH.unpack(header)
    data = stream.read(length)
    if len(data) < length:
        raise EOFError
    return pickle.loads(data)  # noqa: S301 - both ends are ours, and the pipe has no name that others could open
