"""What is installed, what stands in its own way, and what this machine can do."""

from __future__ import annotations

import importlib.metadata
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from qm import target as targets
from qm.catalog import Catalog
from qm.errors import QmError, UsageError
from qm.plugin import Card
from qm.target import Target

FRAMEWORKS = ("keras", "onnx", "onnxruntime", "tensorflow", "torch")
"""Import packages that several distributions carry. pip installs one over the other without a word."""

_BOUND = re.compile(r"(?P<name>[A-Za-z0-9._-]+)[^;]*?>=\s*(?P<least>[0-9][0-9.]*)")


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something that stands in the way, and what to do about it."""

    seen: str
    hint: str


@dataclass(frozen=True, kw_only=True)
class Health:
    """One plugin: whether it is ready, and what it runs on."""

    name: str
    distribution: str
    ready: tuple[str, ...] = ()
    lacking: tuple[str, ...] = ()
    obstacles: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    error: str = ""

    @property
    def state(self) -> str:
        """Ready, what it lacks, or how it is broken."""
        if self.error:
            return f"broken: {self.error}"
        lacks = [f"lacks {', '.join(self.lacking)}"] if self.lacking else []
        return "; ".join([*lacks, *self.obstacles]) or "ready"


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Cores and memory that this process may use, as far as the system tells."""

    cores: int
    physical: int | None
    memory: int
    available: int


def plugins(catalog: Catalog) -> list[Health]:
    """Every plugin, its declarations imported, nothing else."""
    return [_health(catalog, name) for name in catalog.manager.names()]


def _health(catalog: Catalog, name: str) -> Health:
    offers = [o for o in catalog.manager.offers() if o.name == name]
    distribution = " and ".join(str(o) for o in offers)
    try:
        found = catalog.namespace(name)
    except QmError as e:
        return Health(name=name, distribution=distribution, error=e.message)
    lacking = {r for f in found for r in f.lacking()}
    wanted = {d.strip() for f in found for r in f.card.requires for d in r.split("|")}
    installed = {d: v for d in sorted(wanted) if (v := _version(d))}
    return Health(
        name=name,
        distribution=distribution,
        ready=tuple(f.plugin for f in found if not f.obstacle()),
        lacking=tuple(sorted(lacking)),
        obstacles=tuple(f"{f.plugin}: {o.message}" for f in found if not f.lacking() and (o := f.obstacle())),
        packages=tuple(f"{d} {v}" for d, v in installed.items()),
    )


def problems(catalog: Catalog) -> list[Problem]:
    """Names claimed twice, broken plugins and target files, packages installed over each other, packages too old."""
    return [*_claims(catalog), *_broken(catalog), *_targets(), *_overlaps(), *_outdated(catalog)]


def _claims(catalog: Catalog) -> Iterator[Problem]:
    offers = catalog.manager.offers()
    for name in catalog.manager.names():
        claims = [o for o in offers if o.name == name]
        if len(claims) > 1:
            yield Problem(
                seen=f"the plugin name {name!r} is claimed by {' and by '.join(map(str, claims))}",
                hint=f"Uninstall one of them: pip uninstall {claims[-1].distribution}",
            )


def _broken(catalog: Catalog) -> Iterator[Problem]:
    clashing = {o.name for o in catalog.manager.offers() if _is_twice(catalog, o.name)}
    list(catalog.all(Card))
    for name, error in catalog.broken.items():
        if name not in clashing:
            yield Problem(seen=error.message, hint=f"Mend or uninstall {catalog.manager.offer(name).distribution}.")


def _targets() -> Iterator[Problem]:
    for name in targets.names():
        try:
            targets.find(name)
        except UsageError as e:
            yield Problem(seen=e.message, hint=e.hint)


def _is_twice(catalog: Catalog, name: str) -> bool:
    return sum(o.name == name for o in catalog.manager.offers()) > 1


def _overlaps() -> Iterator[Problem]:
    """Two distributions that own one package: the files of the one installed last win, some of the other's stay."""
    owners: dict[str, set[str]] = {}
    for distribution in importlib.metadata.distributions():
        record = distribution.read_text("RECORD") or ""
        for package in FRAMEWORKS:
            if f"\n{package}/__init__.py," in f"\n{record}":
                owners.setdefault(package, set()).add(distribution.name)
    for package, names in owners.items():
        if len(names) > 1:
            both = " and ".join(sorted(names))
            yield Problem(
                seen=f"{both} are installed over each other: each brings its own {package!r}",
                hint=f"Uninstall all of them, then install one: pip uninstall -y {' '.join(sorted(names))}",
            )


def _outdated(catalog: Catalog) -> Iterator[Problem]:
    """Packages older than the distribution of a plugin asks for, extras included."""
    for name in sorted({o.distribution for o in catalog.manager.offers()}):
        for required, least in bounds(_requirements(name)):
            version = _version(required)
            if version and _numbers(version) < _numbers(least):
                yield Problem(
                    seen=f"{required} {version} is older than {least}, which {name} asks for",
                    hint=f"Upgrade it: pip install -U '{required}>={least}'",
                )


def bounds(requirements: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Name and least version of each requirement that has one; those with other markers than extras are left out."""
    for requirement in requirements:
        specifier, _, marker = requirement.partition(";")
        if re.search(r"python_|platform|sys_|os_name|implementation", marker):
            continue
        if found := _BOUND.match(specifier.strip()):
            yield found["name"], found["least"]


def _requirements(distribution: str) -> list[str]:
    try:
        return importlib.metadata.requires(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        return []


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> tuple[int, ...]:
    """The numbers that a version begins with, without zeros at the end: 1.20.0rc1 is (1, 20)."""
    release = re.match(r"\d+(\.\d+)*", version)
    numbers = [int(n) for n in release[0].split(".")] if release else []
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)


def machine() -> Machine:
    """This machine's cores and memory."""
    import psutil

    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = psutil.virtual_memory()
    return Machine(
        cores=usable,
        physical=psutil.cpu_count(logical=False),
        memory=int(memory.total),
        available=int(memory.available),
    )


def abilities(host: Target) -> dict[str, bool | None]:
    """What matters to integer kernels, by name; None where it is not known or does not apply."""
    if host.architecture == "x86_64":
        have = set(host.features)
        return {
            "AVX2": "avx2" in have,
            "AVX-512": "avx512bw" in have,
            "VNNI": bool(have & {"avx512_vnni", "avx_vnni"}),
            "AMX": "amx_int8" in have,
        }
    if host.architecture == "aarch64":
        return {"NEON": True, "dot product": host.integer_dot}
    return {"dot product": host.integer_dot}


def meaning(host: Target) -> list[str]:
    """What the host's abilities mean for int8, in plain words."""
    if host.integer_dot:
        speed = (
            "This CPU sums 8-bit products in 32 bits: nothing saturates, int8 weights keep their full range, and "
            "static int8 (w8a8) is usually faster than float."
        )
    elif host.pair_saturates:
        speed = (
            "This CPU adds pairs of 8-bit products in 16 bits, which saturates and costs accuracy. onnx.ptq chooses "
            "scales for it that no pair of weights can overflow (pair-safe). Static int8 gains little speed or none on "
            "some models, 1.5 times on others: measure it."
        )
    else:
        speed = (
            "Whether integer kernels saturate here, and whether they are fast, is not known. Trust the audit, and "
            "measure the speed."
        )
    return [
        speed,
        "Dynamic int8 (w8d8) pays where matrix products take the time, as in transformers; on convolutions it is often "
        "slower than float. Half precision (f16) saves space on a CPU, not time.",
        f"If the model will run elsewhere, say so: --target {' | '.join(targets.names()[1:])}.",
    ]
