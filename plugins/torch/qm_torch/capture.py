"""A module captured as an exported program, for batches of any length where the module allows it."""

from __future__ import annotations

import inspect
import re
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree

from qm.plugin import Unsupported, UsageError
from qm_torch.quiet import quiet

_FRAME = re.compile(r'File "([^"]+)", line (\d+)|Caused by: \(([^():]+):(\d+) in ')
_OWN = re.compile(r"[/\\]torch[/\\]|^_export/|^torch/|<")
_FIXED = re.compile(r"specialized it to be a constant|not equal to|Constraints violated|specialized")
_DEPENDENT = re.compile(r"data-dependent", re.IGNORECASE)
Examples = tuple[tuple[Any, ...], dict[str, Any]]


def exported(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], *, name: str
) -> tuple[ExportedProgram, list[str]]:
    """The program of the module, and what is to be said of how it was captured.

    The batch is free where that can be; each is tried without and with Python's own tracing of the code (strict).

    Raises:
        UsageError: the module cannot be run on its example inputs.
        Unsupported: it cannot be exported.
    """
    _check_runs(module, args, kwargs, name)
    notes: list[str] = []
    errors: list[Exception] = []
    length = _shared(args, kwargs)
    if length is None:
        notes.append("lengths are fixed as the example inputs have them, which do not share a first one as a batch")
    else:
        for program in _tries(module, *_longer(args, kwargs, length), errors, free=True):
            return program, notes
        notes.append(f"the batch is fixed at {length}: {_why_fixed(errors)}")
    for program in _tries(module, args, kwargs, errors, free=False):
        return program, notes
    raise _unsupported(errors, name)


def _check_runs(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], name: str) -> None:
    try:
        with torch.no_grad():
            # Copies: a module may write into what it is given.
            module(*_copies(args), **_copies(kwargs))
    except Exception as e:
        place = _traced(e)
        raise UsageError(
            f"the module of {name!r} cannot be run on its example inputs: {type(e).__name__}: {_line(e)}{place}",
            hint="Return inputs that it takes, as a tuple of arguments or a dict of named ones.",
        ) from e


def _tries(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], errors: list[Exception], *, free: bool
) -> Iterator[ExportedProgram]:
    """What can be exported; why the rest cannot is added to ``errors``."""
    lengths = pytree.tree_map(_free, (args, kwargs)) if free else None
    # Named arguments are told by name; those before them by their place.
    shapes = None if lengths is None else (_named(module, *lengths) if kwargs else lengths[0])
    for strict in (False, True):
        try:
            with torch.no_grad(), quiet():
                yield torch.export.export(module, args, kwargs, dynamic_shapes=shapes, strict=strict)
        except Exception as e:  # noqa: BLE001 - exporting runs the user's code, which may raise anything
            errors.append(e)


def _named(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    names = list(inspect.signature(module.forward).parameters)
    return dict(zip(names, args, strict=False)) | kwargs


def _free(value: Any) -> dict[int, Any] | None:
    return {0: Dim("batch", min=1)} if isinstance(value, torch.Tensor) and value.ndim else None


def _tensors(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[torch.Tensor]:
    return [t for t in pytree.tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor) and t.ndim]


def _shared(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | None:
    lengths = {int(t.shape[0]) for t in _tensors(args, kwargs)}
    return lengths.pop() if len(lengths) == 1 and 0 not in lengths else None


def _longer(args: tuple[Any, ...], kwargs: dict[str, Any], length: int) -> Examples:
    """The examples, two of a batch of one: PyTorch takes a length of one for a constant."""
    if length > 1:
        return args, kwargs

    def doubled(value: Any) -> Any:
        return torch.cat([value, value]) if isinstance(value, torch.Tensor) and value.ndim else value

    made: Examples = pytree.tree_map(doubled, (args, kwargs))
    return made


def _copies(values: Any) -> Any:
    return pytree.tree_map_only(torch.Tensor, lambda t: t.clone(), values)


def _why_fixed(errors: list[Exception]) -> str:
    places = [place for e in reversed(errors) if (place := _placed(str(e)))]
    at = places[0] if places else ""
    if any(_FIXED.search(str(e)) for e in errors):
        return f"the module's own code fixes it{at}"
    return f"{_line(errors[0])}{at}"


def _unsupported(errors: list[Exception], name: str) -> Unsupported:
    places = [place for e in reversed(errors) if (place := _placed(str(e)))]
    at = places[0] if places else ""
    if any(_DEPENDENT.search(str(e)) for e in errors):
        return Unsupported(
            f"the module of {name!r} cannot be exported: what it does depends on the values of its inputs{at}",
            hint="Write the branch or length without looking at values: with torch.where or torch.cond, for example.",
        )
    return Unsupported(
        f"the module of {name!r} cannot be exported: {_line(errors[-1])}{at}",
        hint="Try torch.export.export(module, inputs) alone, and change what it names.",
    )


def _placed(text: str) -> str:
    """The last line of the user's code that a message of PyTorch names, in words."""
    found = [(m[1] or m[3], m[2] or m[4]) for m in _FRAME.finditer(text)]
    own = [(path, line) for path, line in found if not _OWN.search(path)]
    return f" ({Path(own[-1][0]).name}, line {own[-1][1]})" if own else ""


def _traced(error: Exception) -> str:
    """The last line of the user's code on the way to the error, in words."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not _OWN.search(f.filename)]
    own = [f for f in frames if Path(f.filename).name != Path(__file__).name]
    return f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""


def _line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200] or type(error).__name__
