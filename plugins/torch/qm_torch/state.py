"""Weights from a file, given to a module: tensors by name, and nothing that would have to be unpickled."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from qm.plugin import NotReady, UsageError
from qm_torch.compressed import expanded

SHOWN = 3
_NESTED = ("state_dict", "model_state_dict", "model", "module")


_DAMAGED = (AttributeError, EOFError, LookupError, OSError, OverflowError, RuntimeError, TypeError, ValueError)
"""What reading a damaged file runs into."""


def give(module: nn.Module, weights: str) -> None:
    """Load the weights in a file into the module.

    Raises:
        UsageError: the file is missing or damaged, holds more than tensors, or does not fit the module.
    """
    path = Path(weights)
    if not path.is_file():
        raise UsageError(f"weights {weights!r} do not exist", hint="Check the path.")
    found = _read(path)
    own = module.state_dict()
    problems = [
        _some("lack", [key for key in own if key not in found]),
        _some("have no place for", [key for key in found if key not in own]),
        _some(
            "have other shapes for",
            [_shapes(k, own[k], found[k]) for k in own if k in found and _odd(own[k], found[k])],
        ),
    ]
    if wrong := [p for p in problems if p]:
        raise UsageError(
            f"weights {weights!r} do not fit the module: they {', and '.join(wrong)}",
            hint="Name the weights of this very module, or change the function that makes it.",
        )
    module.load_state_dict(found)


def _read(path: Path) -> dict[str, Tensor]:
    found = _safetensors(path) if path.suffix.lower() == ".safetensors" else _state_dict(path)
    if not isinstance(found, Mapping):
        raise UsageError(f"weights {str(path)!r} are a {type(found).__name__}, not tensors by name", hint=_SAVE)
    for key in _NESTED:
        if isinstance(found.get(key), Mapping):
            found = found[key]
            break
    odd = [key for key, value in found.items() if not isinstance(value, Tensor)]
    if odd or not found:
        what = f"{odd[0]!r} is a {type(found[odd[0]]).__name__}" if odd else "there are none"
        raise UsageError(f"weights {str(path)!r} are not tensors by name: {what}", hint=_SAVE)
    return {str(key): value for key, value in found.items()}


def _safetensors(path: Path) -> Any:
    try:
        from safetensors import SafetensorError, safe_open
        from safetensors.torch import load_file
    except ModuleNotFoundError:
        raise NotReady(
            "reading .safetensors needs safetensors, which is not installed",
            hint="Install it: pip install 'quantized-model[torch]'",
        ) from None
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        return expanded(load_file(path), metadata)
    except (SafetensorError, OSError) as e:
        raise UsageError(f"weights {str(path)!r} are damaged: {_line(e)}", hint="Download them again.") from e


def _state_dict(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as e:
        if "weights_only" not in str(e) and "Weights only" not in str(e):
            raise UsageError(f"weights {str(path)!r} are damaged: {_line(e)}", hint="Download them again.") from e
        raise UsageError(
            f"weights {str(path)!r} hold more than tensors, and unpickling that can run code from the file", hint=_SAVE
        ) from e
    except _DAMAGED as e:
        raise UsageError(f"weights {str(path)!r} are damaged: {_line(e)}", hint="Download them again.") from e


_SAVE = "Save tensors alone: safetensors.torch.save_file(module.state_dict(), 'net.safetensors')."


def _odd(own: Tensor, found: Tensor) -> bool:
    return tuple(own.shape) != tuple(found.shape)


def _shapes(key: str, own: Tensor, found: Tensor) -> str:
    return f"{key} ({list(found.shape)}, not {list(own.shape)})"


def _some(verb: str, keys: Sequence[str]) -> str:
    """The first few keys in words; empty where there are none."""
    if not keys:
        return ""
    rest = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    return f"{verb} {', '.join(keys[:SHOWN])}{rest}"


def _line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200] or type(error).__name__
