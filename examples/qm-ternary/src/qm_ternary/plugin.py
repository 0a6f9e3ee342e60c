"""What this plugin offers: the method ``acme.ternary``."""

from collections.abc import Iterator

from qm.plugin import Field, Options, Quantizer, hookimpl


class TernaryOptions(Options):
    """Options of acme.ternary."""

    threshold: float = Field(default=0.7, gt=0, lt=2, description="weights below this share of the mean become zero")


@hookimpl
def qm_cards() -> Iterator[Quantizer]:
    """One quantizer."""
    yield Quantizer(
        name="ternary",
        summary="weights of -1, 0 and 1, one scale per output channel, two bits each",
        impl="qm_ternary.ternary:quantize",
        options=TernaryOptions,
        takes={"toy"},
        schemes={"w2"},
        default="w2",
    )
