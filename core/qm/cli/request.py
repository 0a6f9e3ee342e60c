"""The flags that quantize and plan share, and the recipe that they spell."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qm.recipe import Recipe


class _Method(argparse.Action):
    """``-p`` opens a stage."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        namespace.stages = [*(namespace.stages or []), (str(values), {})]


class _Option(argparse.Action):
    """``-o name=value`` belongs to the ``-p`` before it, and to the loader where there is none."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        name, equals, value = str(values).partition("=")
        if not equals or not name:
            parser.error(f"option {values!r} is not of the form NAME=VALUE")
        stages = getattr(namespace, "stages", None)
        told = {name.replace("-", "_"): value}
        if stages:
            stages[-1][1].update(told)
        else:
            namespace.load = {**namespace.load, **told}


def add_load(parser: argparse.ArgumentParser, words: str = "an option of the loader") -> None:
    """Add ``-o``."""
    parser.add_argument("-o", "--option", metavar="NAME=VALUE", dest="load", action=_Option, default={}, help=words)


def add_request(parser: argparse.ArgumentParser) -> None:
    """Add the flags of a request."""
    parser.add_argument("model", metavar="MODEL", help="the model: a file, a folder, or package.module:function")
    parser.add_argument(
        "-p", "--plugin", metavar="METHOD", dest="stages", action=_Method, help="a method, left to right; may repeat"
    )
    add_load(parser, "an option of the -p before it; before any -p, of the loader")
    parser.add_argument("--scheme", help="w8a8, w8d8, w8, w4g32, w8a16, f16 ...; the method's own by default")
    parser.add_argument(
        "--rule",
        metavar="LAYERS=SCHEME",
        dest="rules",
        action="append",
        default=[],
        help="layers that get a scheme of their own, such as 'dense*=float'; may repeat, the last that matches holds",
    )
    parser.add_argument("--recipe", metavar="FILE", help="a recipe in TOML or JSON; flags win over it")
    parser.add_argument("--data", metavar="D", help="samples: .npz, .npy, a folder of images, .toml, module:function")
    parser.add_argument("--samples", metavar="N", type=int, help="how many samples calibrate; the others judge")
    parser.add_argument("--target", metavar="T", help="the device: host (default), one of qm targets, a .toml file")
    parser.add_argument("--seed", metavar="N", type=int, help="seed of all that is random (default 0)")
    parser.add_argument("--to", metavar="FILE", help="where to write")
    parser.add_argument("--force", action="store_true", help="overwrite")
    parser.add_argument(
        "--with", metavar="NAME", dest="with_", action="append", default=[], help="load a plugin's hooks"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the route and do nothing")
    parser.add_argument("--json", action="store_true", help="print JSON")


def recipe_of(args: argparse.Namespace) -> Recipe:
    """The recipe that the flags spell, over the one in ``--recipe``.

    Raises:
        UsageError: the recipe file or a flag's value is wrong.
    """
    from pydantic import ValidationError

    from qm.errors import UsageError
    from qm.recipe import Recipe, Stage
    from qm.strict import complaint

    base = Recipe.read(args.recipe) if args.recipe else Recipe()
    told: dict[str, Any] = {
        name: getattr(args, name) for name in ("scheme", "target", "seed", "samples") if getattr(args, name) is not None
    }
    told["rules"] = (*base.model_dump()["rules"], *map(_rule, args.rules))
    if args.stages:
        told["stages"] = tuple(Stage(plugin=name, options=options) for name, options in args.stages)
    try:
        return Recipe.model_validate({**base.model_dump(), **told})
    except ValidationError as e:
        raise UsageError(f"flag {complaint(e)}", hint="See --help.") from e


def _rule(text: str) -> dict[str, str]:
    from qm.errors import UsageError

    layers, equals, scheme = text.rpartition("=")
    if not equals or not layers or not scheme:
        raise UsageError(f"rule {text!r} is not of the form LAYERS=SCHEME", hint="Write for example 'dense*=float'.")
    return {"layers": layers, "scheme": scheme}
