"""What the user's own code makes, a data set or a model: ``package.module:function``."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from qm.errors import QmError, UsageError


def find(name: str) -> Callable[[], object]:
    """The function that ``package.module:function`` names.

    Raises:
        UsageError: there is no such module or function, or the module cannot be imported.
    """
    place, _, attribute = name.partition(":")
    module = _imported(place)
    if not hasattr(module, attribute):
        public = [n for n, value in vars(module).items() if callable(value) and not n.startswith("_")]
        near = difflib.get_close_matches(attribute, public, 1)
        raise UsageError(
            f"module {place!r} has no function {attribute!r}",
            hint=f"Did you mean '{place}:{near[0]}'?" if near else f"Define {attribute} in {module.__file__}.",
        )
    found: object = getattr(module, attribute)
    if not callable(found):
        raise UsageError(f"{name!r} is no function but {type(found).__name__!r}", hint="Name a function.")
    return found


def call(function: Callable[[], object], name: str) -> object:
    """What the function returns.

    Raises:
        UsageError: it raised.
    """
    try:
        return function()
    except QmError:
        raise
    except Exception as e:
        raise UsageError(
            f"function {name!r} raised {type(e).__name__}: {e}",
            hint="It is called without arguments. Run it alone to see where, or add --traceback.",
        ) from e


def _imported(place: str) -> ModuleType:
    top = place.partition(".")[0]
    here = Path.cwd()
    # A console script does not look into the current folder, where the user's module most often is. It goes last, and
    # only where it has that module, so that nothing installed is hidden.
    if str(here) not in sys.path and ((here / f"{top}.py").is_file() or (here / top).is_dir()):
        sys.path.append(str(here))
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as e:
        if e.name and (place == e.name or place.startswith(f"{e.name}.")):
            raise UsageError(
                f"there is no module {place!r}", hint=f"Install it, or run where {top}.py or {top}/ is."
            ) from None
        raise UsageError(f"module {place!r} needs {e.name!r}, which is not there", hint=f"Install {e.name}.") from e
    except Exception as e:
        raise UsageError(
            f"module {place!r} cannot be imported: {type(e).__name__}: {e}", hint=f"Try: python -c 'import {place}'"
        ) from e
