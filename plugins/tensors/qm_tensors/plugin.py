"""Files of weights alone: what this plugin offers."""

from __future__ import annotations

from collections.abc import Iterator

from qm.plugin import Can, Card, Exporter, Loader, Needs, Quantizer, hookimpl


@hookimpl
def qm_cards() -> Iterator[Card]:
    yield Loader(
        name="load",
        summary="weights in a .safetensors file, of any size: they stay on the disk",
        impl="qm_tensors.load:load",
        suffixes={".safetensors"},
        gives="safetensors",
        can={Can.LAYERS, Can.SCHEMES},
    )
    yield Quantizer(
        name="weights",
        summary="weights only, in 8 or 4 bits, one tensor after another, in less memory than the model has",
        impl="qm_tensors.weights:quantize",
        takes={"safetensors"},
        schemes={"w8", "w4g32", "w4g128"},
        default="w8",
        needs=Needs.NOTHING,
    )
    yield Exporter(
        name="save",
        summary="a .safetensors file, in the layout of compressed-tensors",
        impl="qm_tensors.export:export",
        takes={"safetensors"},
        gives="safetensors",
        suffix=".safetensors",
    )
