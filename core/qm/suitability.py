"""What the target will make of an artifact, by the facts known of it; what is not known is passed over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from qm.report import Finding, Level, shortened
from qm.scheme import Activations, Scheme
from qm.target import Target, is_among
from qm.types import Artifact, Operator


def check_machine(target: Target, host: Target) -> Iterator[Finding]:
    """What this machine cannot show of the target."""
    if target.pair_saturates != host.pair_saturates and target.name != host.name:
        known = {True: "saturate", False: "do not saturate", None: "may saturate"}
        yield Finding(
            check="target",
            level=Level.NOTE,
            seen=f"judged on this machine, whose 8-bit kernels {known[host.pair_saturates]}; those of {target.name} "
            f"{known[target.pair_saturates]}",
            next=f"Run qm benchmark on a {target.name} machine before you ship."
            if target.runtime is None
            else f"Compare its answers on {target.name} with those here before you ship.",
        )


def check_memory(target: Target, artifact: Artifact) -> Iterator[Finding]:
    """Whether the file fits in the flash."""
    if target.flash is None:
        return
    size = artifact.nbytes
    text = f"{size:,} of the {target.flash:,} bytes of flash that {target.name} has"
    if size <= target.flash:
        yield Finding(check="target", level=Level.OK, seen=f"the file takes {text}")
    else:
        yield Finding(
            check="target",
            level=Level.WARNING,
            seen=f"the file does not fit: it takes {text}",
            next="Take a narrower scheme, or a smaller model.",
        )


def check_schemes(target: Target, schemes: Mapping[str, Scheme]) -> Iterator[Finding]:
    """Layers whose scheme does not run there, or is not among those that are known to be fast or safe."""
    off = {n: s for n, s in schemes.items() if target.runs(s) is False}
    if off:
        yield Finding(
            check="target",
            level=Level.WARNING,
            seen=f"{len(off)} of {len(schemes)} layers are in {_kinds(off)}, which is not among what {target.name} runs"
            f" ({_runs(target)})",
            layer=shortened(list(off)),
            next="See with qm inspect what each layer is in, and quantize these with a scheme that runs there.",
        )
    on = {n: s for n, s in schemes.items() if n not in off and not s.is_float}
    slow = {n: s for n, s in on.items() if target.fast is not None and not is_among(s, target.fast)}
    if slow:
        yield Finding(
            check="target",
            level=Level.NOTE,
            seen=f"{_kinds(slow)} is not known to be faster than float on {target.name}, as {_or(target.fast)} is",
            layer=shortened(list(slow)),
        )
    integer = {n: s for n, s in on.items() if s.is_integer and s.activations is not Activations.FLOAT}
    unsafe = {n: s for n, s in integer.items() if target.safe is not None and not is_among(s, target.safe)}
    if unsafe:
        yield Finding(
            check="target",
            level=Level.NOTE,
            seen=f"whether sums in {_kinds(unsafe)} can saturate on {target.name} is not known",
            layer=shortened(list(unsafe)),
        )


def check_operators(target: Target, fmt: str, operators: Sequence[Operator]) -> Iterator[Finding]:
    """Operations that will not run as integers there: their operator has no such kernel, or they are in float here."""
    known = target.operators.get(fmt)
    if known is None or not operators:
        return
    lacking = [op for op in operators if op.kind not in known]
    in_float = [op for op in operators if op.kind in known and op.integer is False]
    if lacking:
        yield Finding(
            check="target",
            level=Level.WARNING,
            seen=f"{len(lacking)} of {len(operators)} operations will not run as integers on {target.name}, which has "
            f"no such operator: {_operators(lacking)}",
            layer=_places(lacking),
            next="Build the model without them, or keep them out of the part that runs there.",
        )
    if in_float:
        strict = target.integer_only is True
        yield Finding(
            check="target",
            level=Level.WARNING if strict else Level.NOTE,
            seen=f"{len(in_float)} of {len(operators)} operations compute in float: {_operators(in_float)}"
            + (f"; {target.name} runs integers only" if strict else ""),
            layer=_places(in_float),
            next="Quantize what comes before and after them, too." if strict else "",
        )
    if not lacking and not in_float:
        yield Finding(
            check="target", level=Level.OK, seen=f"{target.name} runs all {len(operators)} operations as integers"
        )


def _kinds(schemes: Mapping[str, Scheme]) -> str:
    return " and ".join(sorted({str(s) for s in schemes.values()}))


def _runs(target: Target) -> str:
    return ", ".join([*(target.schemes or ()), *([] if target.integer_only else ["float"])])


def _or(names: Sequence[str] | None) -> str:
    return " or ".join(names or ()) or "nothing"


def _operators(operators: Sequence[Operator]) -> str:
    return ", ".join(sorted({op.kind for op in operators}))


def _places(operators: Sequence[Operator]) -> str:
    return shortened([op.layer or op.name for op in operators])
