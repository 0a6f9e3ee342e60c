"""How one layer is stored and computed, and the text form of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from qm.errors import UsageError

ALIASES = {"int8": "w8a8", "dynamic": "w8d8", "int16x8": "w8a16", "fp16": "f16", "float32": "float", "f32": "float"}

_TEXT = re.compile(r"w(?P<w>\d{1,2})(?:(?P<mode>[ad])(?P<a>\d{1,2}))?(?:g(?P<g>\d{1,4}))?(?P<t>t)?")


class Activations(StrEnum):
    """What a layer's inputs are at run time."""

    FLOAT = "float"
    STATIC = "static"
    DYNAMIC = "dynamic"


class Granularity(StrEnum):
    """What shares one scale."""

    TENSOR = "tensor"
    CHANNEL = "channel"
    GROUP = "group"


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """How one layer is stored and computed; ``weight_bits`` of 32 is float, of 16 with float activations is half."""

    weight_bits: int = 32
    activations: Activations = Activations.FLOAT
    activation_bits: int = 32
    granularity: Granularity = Granularity.CHANNEL
    group: int = 0

    @classmethod
    def parse(cls, text: str | Scheme) -> Scheme:
        """The scheme that ``text`` names: ``w8a8``, ``w8d8``, ``w4g32``, ``f16``, ``float``, an alias such as ``int8``.

        Raises:
            UsageError: the text is none of these.
        """
        if isinstance(text, Scheme):
            return text
        canonical = ALIASES.get(text.lower(), text.lower())
        if canonical == "float":
            return FLOAT
        if canonical == "f16":
            return F16
        found = _TEXT.fullmatch(canonical)
        if found is None or not 1 <= int(found["w"]) <= 16 or (found["g"] and found["t"]) or found["g"] == "0":
            raise UsageError(
                f"{text!r} is not a scheme",
                hint="Write for example w8a8, w8d8, w8, w4g32, w8a16, f16 or float; a t at the end means per tensor.",
            )
        granularity = Granularity.GROUP if found["g"] else Granularity.TENSOR if found["t"] else Granularity.CHANNEL
        modes = {"a": Activations.STATIC, "d": Activations.DYNAMIC, None: Activations.FLOAT}
        return cls(
            weight_bits=int(found["w"]),
            activations=modes[found["mode"]],
            activation_bits=int(found["a"] or 32),
            granularity=granularity,
            group=int(found["g"] or 0),
        )

    @property
    def is_float(self) -> bool:
        """Whether the layer is left as it was."""
        return self == FLOAT

    @property
    def is_integer(self) -> bool:
        """Whether the weights are stored as integers."""
        return self.weight_bits < 32 and self != F16

    @property
    def is_static(self) -> bool:
        """Whether activation ranges are fixed ahead, which takes calibration data."""
        return self.activations is Activations.STATIC

    def __str__(self) -> str:
        if self.is_float:
            return "float"
        if self == F16:
            return "f16"
        mode = {Activations.STATIC: "a", Activations.DYNAMIC: "d", Activations.FLOAT: ""}[self.activations]
        bits = str(self.activation_bits) if mode else ""
        tail = {Granularity.GROUP: f"g{self.group}", Granularity.TENSOR: "t", Granularity.CHANNEL: ""}[self.granularity]
        return f"w{self.weight_bits}{mode}{bits}{tail}"


FLOAT = Scheme()
F16 = Scheme(weight_bits=16, activation_bits=16)
