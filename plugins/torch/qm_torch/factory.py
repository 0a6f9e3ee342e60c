"""A module that the user's own function makes, exported once, with a batch of any length where the module allows it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

# torchao's native libraries are for CUDA alone, and it complains aloud where they cannot be loaded.
os.environ.setdefault("TORCHAO_FORCE_SKIP_LOADING_SO_FILES", "1")

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from qm.plugin import LoadJob, UsageError, function
from qm_torch import capture, state
from qm_torch.model import TorchModel
from qm_torch.option import FactoryOptions

_RETURN = "Return a torch.nn.Module and example inputs: return module, (torch.zeros(1, 3, 224, 224),)."


def load(job: LoadJob) -> TorchModel:
    """The program of the module that ``package.module:function`` returns.

    Raises:
        UsageError: there is no such function, it raises, or it returns something else; the weights do not fit.
        Unsupported: the module cannot be exported.
    """
    name = str(job.path)
    options: FactoryOptions = job.options
    module, inputs = _made(function.call(function.find(name), name), name)
    if isinstance(module, ExportedProgram):
        if options.weights is not None:
            raise UsageError(
                f"function {name!r} returns an exported program, which has its weights",
                hint="Leave -o weights out, or return the module.",
            )
        return TorchModel(module, name=name)
    if options.weights is not None:
        state.give(module, options.weights)
    program, notes = capture.exported(module.eval(), *inputs, name=name)
    for note in notes:
        job.notes.say(note)
    return TorchModel(program, name=name, notes=notes)


def _made(value: object, name: str) -> tuple[Any, tuple[tuple[Any, ...], dict[str, Any]]]:
    """The module, and the positional and named arguments of one call of it.

    Raises:
        UsageError: the function returned something else.
    """
    if isinstance(value, ExportedProgram):
        return value, ((), {})
    module, examples = value if isinstance(value, tuple) and len(value) == 2 else (value, None)
    if isinstance(module, torch.jit.ScriptModule):
        raise UsageError(
            f"function {name!r} returns TorchScript, which cannot be exported",
            hint="Return the module that it was made of.",
        )
    if not isinstance(module, nn.Module):
        raise UsageError(f"function {name!r} returns {_called(value)}, not a module", hint=_RETURN)
    if examples is None:
        examples = getattr(module, "example_inputs", None)
        examples = examples() if callable(examples) else examples
    if examples is None:
        raise UsageError(f"function {name!r} returns a module without example inputs", hint=_RETURN)
    return module, _inputs(examples, name)


def _inputs(examples: object, name: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A tensor, a sequence of arguments, or a mapping of named ones; tensors become copies of their own."""
    args: tuple[Any, ...] = ()
    named: dict[str, Any] = {}
    if isinstance(examples, Mapping):
        named = {str(key): value for key, value in examples.items()}
    elif isinstance(examples, Sequence) and not isinstance(examples, str):
        args = tuple(examples)
    else:
        args = (examples,)
    if not any(isinstance(leaf, torch.Tensor) for leaf in pytree.tree_leaves((args, named))):
        raise UsageError(f"function {name!r} returns {_called(examples)} as example inputs, no tensors", hint=_RETURN)
    # A view would be saved with all of the storage behind it.
    args, named = pytree.tree_map_only(torch.Tensor, lambda t: t.detach().clone(), (args, named))
    return args, named


def _called(value: object) -> str:
    return "None" if value is None else f"a value of type {type(value).__name__}"
