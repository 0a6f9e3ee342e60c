"""The nouns that every plugin shares: models, layers, plans, artifacts, sessions, data sets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from qm.errors import Unsupported
from qm.scheme import Scheme

Array = NDArray[Any]
Batch = Mapping[str, Array]
"""Arrays by input (or output, or layer) name, the batch axis first where the model has one."""

Cache = Literal["hot", "cold"]
"""What the processor's caches hold when a run is timed: the model, or nothing of it."""


class Can(StrEnum):
    """What a model or session of a framework offers beyond the least."""

    LAYERS = "layers"
    RUN = "run"
    ACTIVATIONS = "activations"
    SCHEMES = "schemes"
    PROFILE = "profile"
    EXACT = "exact"


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """An input or output: its name, its shape (``None`` where any length will do), its NumPy dtype's name."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str

    def __str__(self) -> str:
        sizes = ", ".join("?" if n is None else str(n) for n in self.shape)
        return f"{self.name} {self.dtype} [{sizes}]"


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One operation with weights.

    ``kind`` is the framework's own operator name; ``weights`` counts the weight elements that can be quantized, without
    the bias; ``macs`` counts multiply-accumulates for one sample, 0 where shapes do not tell; layers of one ``tied``
    name share one weight tensor and must share one scheme.
    """

    name: str
    kind: str
    weights: int
    macs: int = 0
    tied: str | None = None


def unique(names: Iterable[str]) -> list[str]:
    """The names, those that came before with a dot and a number added."""
    seen: set[str] = set()
    made: list[str] = []
    for name in names:
        candidate, number = name, 1
        while candidate in seen:
            number += 1
            candidate = f"{name}.{number}"
        seen.add(candidate)
        made.append(candidate)
    return made


@dataclass(frozen=True, kw_only=True)
class Operator:
    """One operation of a model as its file has it, whatever a runtime makes of it.

    ``kind`` is the format's own name for the operator; ``layer`` is empty where the operation belongs to no layer.
    ``integer`` says whether it computes in integers, None where it does not compute, or where that cannot be told.
    """

    name: str
    kind: str
    layer: str = ""
    integer: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Hazard:
    """A layer whose integer weights break a bound that the kernels of some CPUs rely on; ``seen`` is a clause."""

    layer: str
    seen: str


@dataclass(frozen=True)
class Plan:
    """A recipe worked out for one model: the scheme of each layer by name; a layer not named stays in float."""

    layers: Mapping[str, Scheme] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Scheme:
        return self.layers.get(name, Scheme())

    def quantized(self) -> dict[str, Scheme]:
        """The layers that do not stay in float."""
        return {name: scheme for name, scheme in self.layers.items() if not scheme.is_float}

    def schemes(self) -> set[Scheme]:
        """Every scheme in use, float left out."""
        return set(self.quantized().values())

    def check(self, names: Iterable[str], offered: AbstractSet[str], method: str) -> None:
        """Check that the plan speaks of layers that are there, in schemes that ``method`` offers.

        Raises:
            Unsupported: a layer is not among ``names``, or a scheme not among ``offered``.
        """
        there = set(names)
        for name, scheme in self.quantized().items():
            if name not in there:
                raise Unsupported(
                    f"the plan names the layer {name!r}, which the model does not have",
                    hint=f"The layers are: {', '.join(sorted(there)[:12])}.",
                )
            if str(scheme) not in offered:
                raise Unsupported(
                    f"{method} has no scheme {str(scheme)!r}, which layer {name!r} should get",
                    hint=f"It has {', '.join(sorted(offered))}.",
                )


class Model(ABC):
    """A loaded model. It grows by methods with defaults: one that a framework does not offer raises Unsupported."""

    format: ClassVar[str]
    """The format's name, as cards spell it."""

    @property
    @abstractmethod
    def native(self) -> Any:
        """The framework's own object."""

    @abstractmethod
    def inputs(self) -> Sequence[TensorSpec]: ...

    @abstractmethod
    def outputs(self) -> Sequence[TensorSpec]: ...

    @abstractmethod
    def nbytes(self) -> int:
        """Bytes the model takes when stored."""

    @property
    def is_streamed(self) -> bool:
        """Whether its weights stay on the disk until they are used, since they may be larger than memory."""
        return False

    def digest(self) -> str:
        """SHA-256 of all that the model holds, as hexadecimal digits; what a function makes has no file to tell by."""
        raise Unsupported(f"a model of format {self.format!r} has no digest of its own")

    def layers(self) -> Sequence[Layer]:
        """Layers in execution order, by names that stay the same across loads and across quantization (Can.LAYERS)."""
        raise Unsupported(f"a model of format {self.format!r} does not list its layers")

    def run(self, batch: Batch, watch: Sequence[str] = ()) -> dict[str, Array]:
        """Outputs by name, and the output activations of the watched layers by layer name, from the real kernels."""
        raise Unsupported(f"a model of format {self.format!r} does not run")

    def schemes(self) -> dict[str, Scheme]:
        """What each layer IS in, read from the model itself, never from a plan (Can.SCHEMES)."""
        raise Unsupported(f"a model of format {self.format!r} does not tell its schemes")

    def operators(self) -> Sequence[Operator]:
        """Every operation, in the file's order, so that a target that lacks one can be named before it is met."""
        raise Unsupported(f"a model of format {self.format!r} does not list its operations")

    def run_exact(self, batch: Batch, watch: Sequence[str] = ()) -> dict[str, Array]:
        """As ``run``, by kernels whose integer sums cannot saturate (Can.EXACT); slower, and for comparison only."""
        raise Unsupported(f"a model of format {self.format!r} cannot be run by exact kernels")

    def hazards(self) -> Sequence[Hazard]:
        """Layers whose weights can saturate on kernels of some CPUs, in execution order (Can.EXACT)."""
        raise Unsupported(f"a model of format {self.format!r} does not tell which layers can saturate")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.format}, {self.nbytes():,} bytes>"


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A model on disk."""

    path: Path
    format: str

    @property
    def nbytes(self) -> int:
        """Bytes on disk, external data and the files of a folder included."""
        if self.path.is_dir():
            return sum(f.stat().st_size for f in self.path.rglob("*") if f.is_file())
        siblings = self.path.parent.glob(self.path.name + ".data")
        return self.path.stat().st_size + sum(f.stat().st_size for f in siblings)


@dataclass(frozen=True, kw_only=True)
class OpTime:
    """Time in one operation, in microseconds per run; ``layer`` is empty where the operation belongs to no layer.

    ``integer`` says whether the kernel multiplied integers, ``fast`` whether it is one of those that make the runtime
    fast; None where that cannot be seen.
    """

    name: str
    kind: str
    latency_us: float
    layer: str = ""
    integer: bool | None = None
    fast: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Activation:
    """What calibration saw of one tensor, and the range chosen for it.

    ``counts`` has one entry between each two ``edges``. ``sqnr_db`` is what rounding and clipping to ``low .. high`` in
    ``bits`` is expected to leave, ``clipped`` the share of values outside.
    """

    tensor: str
    layer: str
    bits: int
    low: float
    high: float
    edges: Sequence[float]
    counts: Sequence[float]
    sqnr_db: float
    clipped: float


class Session(ABC):
    """One artifact opened by its real runtime."""

    @property
    @abstractmethod
    def runtime(self) -> str:
        """The runtime in words: ``onnxruntime 1.31.1 CPUExecutionProvider, 1 thread``."""

    @abstractmethod
    def inputs(self) -> Sequence[TensorSpec]: ...

    @abstractmethod
    def run(self, batch: Batch) -> dict[str, Array]: ...

    def profile(self, batch: Batch) -> list[OpTime]:
        """Time per operation (Can.PROFILE)."""
        raise Unsupported(f"{self.runtime} does not profile operations")


@runtime_checkable
class Dataset(Protocol):
    """Samples that can be walked through again and again.

    Each item maps input names to arrays that are ready to feed, the batch axis (of length 1) included.
    ``labels``, where present, has one entry a sample.
    """

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Batch]: ...
    @property
    def labels(self) -> NDArray[np.int64] | None: ...
