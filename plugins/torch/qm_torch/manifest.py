"""What an artifact says of itself: names, shapes, layers and schemes, written by whoever compiled it.

Machine code does not tell what it was made of. The manifest is read from the very program that is compiled, and lies in
the artifact; no framework is needed to read it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from qm.plugin import Layer, Scheme, TensorSpec

KEY = "qm"
VERSION = 1

Size = int | str
"""A length: fixed, or the name of one that may vary."""


@dataclass(frozen=True, kw_only=True)
class Port:
    """An input or output. ``shape`` names the lengths that vary, so that equal ones can be told."""

    name: str
    shape: tuple[Size, ...]
    dtype: str

    @property
    def spec(self) -> TensorSpec:
        """As the core sees it."""
        sizes = tuple(n if isinstance(n, int) else None for n in self.shape)
        return TensorSpec(name=self.name, shape=sizes, dtype=self.dtype)


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """``limits`` bounds the lengths that vary, ``isa`` names what the machine code asks of a CPU."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    layers: tuple[Layer, ...] = ()
    schemes: Mapping[str, Scheme] = field(default_factory=dict)
    limits: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    torch: str = ""
    isa: tuple[str, ...] = ()

    def text(self) -> str:
        """The same text for the same manifest."""
        schemes = {name: str(scheme) for name, scheme in self.schemes.items()}
        return json.dumps({**asdict(self), "schemes": schemes, "version": VERSION}, sort_keys=True)

    @classmethod
    def parse(cls, text: str) -> Manifest:
        """The manifest of a text.

        Raises:
            ValueError: it is none, or one of a later version.
        """
        try:
            told = json.loads(text)
            if told["version"] != VERSION:
                raise ValueError(f"its description has version {told['version']!r}, and {VERSION} is known here")
            return cls(
                inputs=_ports(told["inputs"]),
                outputs=_ports(told["outputs"]),
                layers=tuple(Layer(**layer) for layer in told["layers"]),
                schemes={name: Scheme.parse(scheme) for name, scheme in told["schemes"].items()},
                limits={name: (int(low), int(high)) for name, (low, high) in told["limits"].items()},
                torch=str(told["torch"]),
                isa=tuple(map(str, told["isa"])),
            )
        except (KeyError, TypeError, AttributeError) as e:
            raise ValueError(f"its description lacks {e}") from e


def _ports(told: list[dict[str, object]]) -> tuple[Port, ...]:
    return tuple(
        Port(name=str(p["name"]), shape=tuple(p["shape"]), dtype=str(p["dtype"]))  # type: ignore[arg-type]
        for p in told
    )
