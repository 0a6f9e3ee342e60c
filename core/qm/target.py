"""What a device can do, as named, versioned data; ``host`` is found by looking. Unknown is not false."""

from __future__ import annotations

import difflib
import platform
import tomllib
from functools import cache
from importlib import resources

from pydantic import Field, ValidationError

from qm.errors import UsageError
from qm.strict import Strict, complaint


class Target(Strict):
    """A kind of device. ``None`` in any fact means that it is not known."""

    name: str
    version: int = 1
    summary: str = ""
    architecture: str | None = Field(default=None, description="x86_64, aarch64, armv7 ...")
    features: tuple[str, ...] = Field(default=(), description="instruction sets that matter to integer kernels")
    integer_dot: bool | None = Field(default=None, description="one instruction sums 8-bit products in 32 bits")
    pair_saturates: bool | None = Field(
        default=None, description="u8 x s8 kernels add pairs of products in 16 bits, which saturates"
    )

    def __repr__(self) -> str:
        return f"<Target {self.name}>"


def names() -> list[str]:
    """Names of the targets that ship with the project, ``host`` first."""
    files = resources.files("qm").joinpath("targets").iterdir()
    return ["host", *sorted(f.name.removesuffix(".toml") for f in files if f.name.endswith(".toml"))]


def find(name: str) -> Target:
    """The target of that name.

    Raises:
        UsageError: there is none.
    """
    if name == "host":
        return host()
    if name not in names():
        near = difflib.get_close_matches(name, names(), 1)
        raise UsageError(
            f"there is no target {name!r}",
            hint=(f"Did you mean {near[0]!r}? " if near else "") + f"The targets are: {', '.join(names())}.",
        )
    text = resources.files("qm").joinpath("targets", f"{name}.toml").read_text(encoding="utf-8")
    try:
        return Target.model_validate({"name": name, **tomllib.loads(text)})
    except ValidationError as e:
        raise UsageError(f"target {name!r} is wrong: {complaint(e)}") from e


@cache
def host() -> Target:
    """This machine, by its CPU's flags."""
    import cpuinfo

    found = cpuinfo.get_cpu_info()
    flags = set(found.get("flags", ()))
    cpu = found.get("brand_raw", platform.processor() or "unknown CPU")
    if found.get("arch") == "X86_64":
        return _x86(cpu, flags)
    if found.get("arch") == "ARM_8":
        dot = bool({"asimddp", "dotprod"} & flags) or "Apple" in cpu
        return Target(
            name="host",
            summary=f"{cpu}, {'dot product' if dot else 'no dot product'}",
            architecture="aarch64",
            features=("neon", "dotprod") if dot else ("neon",),
            integer_dot=dot,
            pair_saturates=False if dot else None,
        )
    return Target(name="host", summary=cpu, architecture=platform.machine() or None)


def _x86(cpu: str, flags: set[str]) -> Target:
    features = tuple(f for f in ("avx2", "avx512bw", "avx512_vnni", "avx_vnni", "amx_int8") if f in flags)
    vnni = bool({"avx512_vnni", "avx_vnni"} & set(features))
    return Target(
        name="host",
        summary=f"{cpu}, {'VNNI' if vnni else 'no VNNI'}",
        architecture="x86_64",
        features=features,
        integer_dot=vnni,
        # vpmaddubsw, the widest 8-bit multiply before VNNI, saturates at 16 bits.
        pair_saturates=not vnni,
    )
