"""What the toy framework offers."""

from __future__ import annotations

from collections.abc import Iterator

from qm.plugin import Benchmark, Can, Card, Exporter, Field, Loader, Needs, Options, Planner, Quantizer, hookimpl

CAN = frozenset({Can.LAYERS, Can.RUN, Can.ACTIVATIONS, Can.SCHEMES})


class RoundOptions(Options):
    """Options of toy.round."""

    clip: float = Field(default=1.0, gt=0.0, le=1.0, description="share of the largest weight that the scale covers")


class ProtectOptions(Options):
    """Options of toy.protect."""

    count: int = Field(default=1, ge=1, description="how many layers to protect")
    scheme: str = Field(default="float", description="the better scheme that the protected layers get")


@hookimpl
def qm_cards() -> Iterator[Card]:
    """The cards of the toy framework."""
    yield Loader(
        name="load",
        summary="read a .toy file",
        impl="qm_toy.store:load",
        suffixes={".toy"},
        gives="toy",
        can=CAN,
    )
    yield Exporter(
        name="save", summary="write a .toy file", impl="qm_toy.store:save", takes={"toy"}, gives="toy", suffix=".toy"
    )
    yield Benchmark(
        name="run", summary="run in NumPy", impl="qm_toy.session:connect", takes={"toy"}, can=frozenset({Can.PROFILE})
    )
    yield Quantizer(
        name="round",
        summary="round weights to the nearest integer, one scale per output channel",
        impl="qm_toy.round:quantize",
        options=RoundOptions,
        takes={"toy"},
        schemes={"w8a8", "w8d8", "w8", "w4"},
        default="w8a8",
        default_without_data="w8d8",
        needs=Needs.RANGES,
    )
    yield Planner(
        name="protect",
        summary="keep the layers that lose most in a better scheme",
        impl="qm_toy.protect:plan",
        options=ProtectOptions,
        needs=frozenset({Can.LAYERS}),
    )
