"""Why an artifact is not faster: float kernels, borders, missing instructions, and what is not quantized at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from qm import target as targets
from qm.diagnosis.explanation import Cause, LayerTime, Timing
from qm.diagnosis.pair import counted, some
from qm.measurement import Ratio
from qm.scheme import Activations, Scheme

FAST = 1.5
"""From this ratio on, only what is plainly amiss is said."""
BORDERS = 0.1
REST = 0.25


def slower(
    timing: Timing | None, speed: Ratio | None, schemes: Mapping[str, Scheme], *, saturates: bool
) -> tuple[Cause, ...]:
    """Causes by the share of the artifact's time that they take."""
    if timing is None or not timing.after_us:
        return ()
    slow = speed is None or speed.ratio < FAST
    found = [*_float_kernels(timing, schemes), *_unpacked(timing, schemes), *_borders(timing, slow=slow)]
    found += _integer_kernels(timing, slow=slow, saturates=saturates)
    if slow:
        found += _rest(timing)
    return tuple(cause for _, cause in sorted(found, key=lambda pair: -pair[0]))


def _float_kernels(timing: Timing, schemes: Mapping[str, Scheme]) -> Iterator[tuple[float, Cause]]:
    meant = {name for name, s in schemes.items() if s.is_integer and s.activations is not Activations.FLOAT}
    slow = [t for t in timing.layers if t.layer in meant and t.integer is False]
    if not slow:
        return
    share = sum(t.after_us for t in slow) / timing.after_us
    wide = all(schemes[t.layer].activation_bits > 8 for t in slow)
    names = tuple(t.layer for t in slow)
    yield (
        share,
        Cause(
            about="slower",
            name="float kernels",
            sentence=f"Float kernels compute {counted(len(slow))} that should be in integers ({some(names)}), in "
            f"{share:.0%} of the time: {_against(slow)}.",
            layers=names,
            next="Take 8-bit activations for them where the error allows." if wide else "Leave them in float.",
        ),
    )


def _unpacked(timing: Timing, schemes: Mapping[str, Scheme]) -> Iterator[tuple[float, Cause]]:
    """Layers with integer weights alone, which are taken back to float at each run."""
    alone = {name for name, s in schemes.items() if s.is_integer and s.activations is Activations.FLOAT}
    slow = [t for t in timing.layers if t.layer in alone and t.after_us > t.before_us]
    if not slow:
        return
    names = tuple(t.layer for t in slow)
    yield (
        sum(t.after_us for t in slow) / timing.after_us,
        Cause(
            about="slower",
            name="unpacked weights",
            sentence=f"Integer weights alone are unpacked at each run, in {counted(len(slow))} that compute in float "
            f"({some(names)}): {_against(slow)}.",
            layers=names,
            next="Take such schemes for size; for speed, take one with 8-bit activations, such as w8a8 or w8d8.",
        ),
    )


def _against(rows: list[LayerTime]) -> str:
    before, after = sum(t.before_us for t in rows), sum(t.after_us for t in rows)
    return f"{before:,.0f} us before, {after:,.0f} us after"


def _borders(timing: Timing, *, slow: bool) -> Iterator[tuple[float, Cause]]:
    share = timing.border_share
    if share < (BORDERS / 2 if slow else BORDERS):
        return
    yield (
        share,
        Cause(
            about="slower",
            name="borders",
            sentence=f"Quantizing and dequantizing alone, {timing.borders} operations, take {share:.0%} of the time "
            f"({timing.border_us:,.0f} us).",
            next="Quantize the operations between the layers too, or leave short runs of layers in float.",
        ),
    )


def _integer_kernels(timing: Timing, *, slow: bool, saturates: bool) -> Iterator[tuple[float, Cause]]:
    """What integer layers gain here, beside what the instructions allow at best.

    A 256-bit register holds 32 products of 8 bits: VNNI sums them in 1 instruction, AVX2 in 3 (VPMADDUBSW, VPMADDWD,
    VPADDD); a float multiply-add does 8 in 1. At best that is 4 times float, and 32 / 3 / 8 = 1.3 times.
    Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2.
    """
    rows = [t for t in timing.layers if t.integer and t.before_us and t.after_us]
    if not rows:
        return
    gain = sum(t.before_us for t in rows) / sum(t.after_us for t in rows)
    host = targets.host()
    lacking = host.integer_dot is False or saturates
    if not lacking and not (slow and gain < FAST):
        return
    worst = max(rows, key=lambda t: t.after_us - t.before_us)
    why = f"the least gain is in {worst.layer!r}: {_against([worst])}"
    if lacking:
        why = "they have no instruction that sums 8-bit products in 32 bits"
        if host.architecture == "x86_64":
            why += ": 3 do the work of 1, so that arithmetic alone gives 1.3 times at most, where VNNI gives 4"
    yield (
        sum(t.after_us for t in rows) / timing.after_us,
        Cause(
            about="slower",
            name="integer kernels",
            sentence=f"Integer kernels of {counted(len(rows))} are {gain:.2f} times as fast as float ones; {why}.",
            next="Measure on the device that you ship to; qm doctor says what this CPU can do.",
        ),
    )


def _rest(timing: Timing) -> Iterator[tuple[float, Cause]]:
    rows = sorted(timing.others, key=lambda row: -row.after_us)
    share = sum(row.after_us for row in rows) / timing.after_us
    if share < REST:
        return
    yield (
        share,
        Cause(
            about="slower",
            name="other operations",
            sentence=f"Operations that belong to no layer take {share:.0%} of the time, mostly "
            f"{', '.join(row.kind for row in rows[:3])}: quantizing layers does not make them faster.",
            next="See whether these operations can be fused or left out before export.",
        ),
    )
