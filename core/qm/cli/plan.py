"""``qm plan``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from qm.cli.request import add_request, recipe_of

SUMMARY = "Work out the recipe that quantize would run, and write it to a file or print it."


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    add_request(parser)
    parser.epilog = (
        "Without --to, the recipe is printed. Edit it, and run it with: qm quantize MODEL --recipe FILE\n\n"
        "exit codes: 0 done, 2 usage, 4 a plugin failed, 130 interrupted"
    )


def run(args: argparse.Namespace) -> int:
    """Run the command; the exit code."""
    from qm.cli.session import run_of
    from qm.file import refuse_overwrite

    place = Path(args.to) if args.to else None
    if place is not None:
        refuse_overwrite(place, force=args.force)
    # The recipe goes to --to; where the model itself would be written does not matter yet.
    args.to, args.force, force = None, True, args.force
    current = run_of(args, recipe_of(args))
    if args.dry_run:
        print("\n".join(current.route.lines()))
        return 0
    recipe = current.spelled_out()
    if place is not None:
        recipe.write(place, force=force)
        print(f"wrote {place}: {len(recipe.rules)} rules; run it with qm quantize {args.model} --recipe {place}")
    else:
        sys.stdout.write(recipe.text(fmt="json" if args.json else "toml"))
    return 0
