"""What a device can do, as named, versioned data; ``host`` is found by looking. Unknown is not false."""

from __future__ import annotations

import difflib
import os
import platform
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, field_validator

from qm import shelf
from qm.errors import UsageError
from qm.scheme import Granularity, Scheme
from qm.strict import Strict, complaint

FORM = "See docs/how-to/target.md for its form."


class Target(Strict):
    """A kind of device. ``None`` in any fact means that it is not known, and so does a fact that is left out."""

    name: str
    version: int = Field(default=1, ge=1, description="counts up when the facts change")
    summary: str = ""
    runtime: str | None = Field(default=None, description="what runs the model there, in words")
    formats: tuple[str, ...] | None = Field(default=None, description="formats that it opens: tflite, onnx, pte ...")
    architecture: str | None = Field(default=None, description="x86_64, aarch64, armv7 ...")
    features: tuple[str, ...] = Field(default=(), description="instruction sets that matter to integer kernels")
    integer_dot: bool | None = Field(default=None, description="one instruction sums 8-bit products in 32 bits")
    pair_saturates: bool | None = Field(
        default=None, description="u8 x s8 kernels add pairs of products in 16 bits, which saturates"
    )
    schemes: tuple[str, ...] | None = Field(default=None, description="schemes that run there, float aside")
    fast: tuple[str, ...] | None = Field(default=None, description="schemes that are faster there than float")
    safe: tuple[str, ...] | None = Field(default=None, description="schemes whose integer sums cannot saturate")
    integer_only: bool | None = Field(default=None, description="nothing in float runs there")
    operators: Mapping[str, tuple[str, ...]] = Field(
        default_factory=dict, description="operators that run as integers, by format, under the format's own names"
    )
    alignment: int | None = Field(default=None, ge=1, description="channels are padded to a multiple of this")
    flash: int | None = Field(default=None, ge=1, description="bytes that a model file may take")
    ram: int | None = Field(default=None, ge=1, description="bytes of working memory")

    @field_validator("schemes", "fast", "safe")
    @classmethod
    def _are_schemes(cls, told: tuple[str, ...] | None) -> tuple[str, ...] | None:
        try:
            return None if told is None else tuple(str(Scheme.parse(text)) for text in told)
        except UsageError as e:
            raise ValueError(e.message) from e

    def runs(self, scheme: Scheme) -> bool | None:
        """Whether layers in that scheme run there; None where it is not known."""
        if scheme.is_float:
            return None if self.integer_only is None else not self.integer_only
        return None if self.schemes is None else is_among(scheme, self.schemes)

    def opens(self, fmt: str) -> bool | None:
        """Whether its runtime opens files of that format; None where it is not known."""
        return None if self.formats is None else fmt in self.formats

    def __repr__(self) -> str:
        return f"<Target {self.name}>"


def is_among(scheme: Scheme, names: Sequence[str]) -> bool:
    """Whether a list of schemes holds the scheme; one scale for the whole tensor is a case of one a channel."""
    texts = {str(scheme)}
    if scheme.granularity is Granularity.TENSOR:
        texts.add(str(scheme).removesuffix("t"))
    return bool(texts & set(names))


def names() -> list[str]:
    """Names of the targets that can be asked for, ``host`` first."""
    return ["host", *shelf.copies()]


def every() -> Iterator[Target]:
    """Every target whose file is right, this machine left out."""
    for name in shelf.copies():
        try:
            yield find(name)
        except UsageError:
            continue


def is_path(name: str) -> bool:
    """Whether a target is asked for by its file."""
    return name.endswith(".toml") or "/" in name or os.sep in name


def find(name: str) -> Target:
    """The target of that name, or in the file of that path.

    Raises:
        UsageError: there is none, two distributions bring it, or its file is wrong.
    """
    if name == "host":
        return host()
    return _read(Path(name) if is_path(name) else locate(name).path, ())


def locate(name: str) -> shelf.Copy:
    """The file of the target of that name; raises as ``find`` does."""
    found = shelf.copies()
    if name not in found:
        every_name = ["host", *found]
        near = difflib.get_close_matches(name, every_name, 1)
        raise UsageError(
            f"there is no target {name!r}",
            hint=(f"Did you mean {near[0]!r}? " if near else "") + f"The targets are: {', '.join(every_name)}.",
        )
    first, *others = found[name]
    if others and not first.own:
        raise UsageError(
            f"the target {name!r} is described by {' and by '.join(c.origin for c in found[name])}",
            hint=f"Name the file you mean: --target {others[0].path}",
        )
    return first


def _read(path: Path, above: tuple[Path, ...]) -> Target:
    """The target in a file; ``above`` are the files that extend it."""
    name = path.stem
    told = _told(path)
    base = told.pop("extends", None)
    try:
        if base is not None:
            if not isinstance(base, str):
                raise UsageError(f"target {str(path)!r} is wrong: 'extends': should be the name of a target", hint=FORM)
            told = {**_base(base, path, above), **told}
        return Target.model_validate({**told, "name": name})
    except ValidationError as e:
        raise UsageError(f"target {str(path)!r} is wrong: {complaint(e)}", hint=FORM) from e


def _told(path: Path) -> dict[str, Any]:
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"target {str(path)!r} does not exist", hint="Check the path, or see qm targets.") from None
    except (OSError, UnicodeDecodeError) as e:
        raise UsageError(f"target {str(path)!r} cannot be read: {e}", hint="Check the path.") from e
    except tomllib.TOMLDecodeError as e:
        raise UsageError(f"target {str(path)!r} is not TOML: {e}", hint=FORM) from e
    if "name" in told:
        raise UsageError(
            f"target {str(path)!r} is wrong: 'name': is unknown here", hint="Name the file as the target is called."
        )
    return told


def _base(base: str, path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    """The facts of the target that the file at ``path`` extends; a path is meant from there."""
    if base == "host":
        return host().model_dump(exclude_none=True)
    try:
        place = path.parent / base if is_path(base) else locate(base).path
    except UsageError as e:
        raise UsageError(f"target {str(path)!r} is wrong: 'extends': {e.message}", hint=e.hint) from None
    chain = (*above, path.resolve())
    if place.resolve() in chain:
        raise UsageError(
            f"target {str(path)!r} extends {base!r}, which extends it", hint="Let one of them stand alone."
        )
    return _read(place, chain).model_dump(exclude_none=True)


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
