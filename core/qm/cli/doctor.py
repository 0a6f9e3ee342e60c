"""``qm doctor``: what is installed, what clashes, what this machine can do."""

from __future__ import annotations

import argparse
import platform
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qm.doctor import Health, Machine, Problem
    from qm.target import Target

SUMMARY = "Say what is installed, what clashes, and what this CPU can do."


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Examine everything; 1 where something is in the way."""
    from qm import doctor
    from qm import target as targets
    from qm.catalog import Catalog
    from qm.cli.screen import show_json

    catalog = Catalog()
    health, problems = doctor.plugins(catalog), doctor.problems(catalog)
    host, machine = targets.host(), doctor.machine()
    if args.json:
        show_json(_json(health, problems, host, machine))
    else:
        _print(health, problems, host, machine)
    return 1 if problems else 0


def _json(health: list[Health], problems: list[Problem], host: Target, machine: Machine) -> dict[str, Any]:
    from qm.doctor import abilities, meaning

    return {
        "version": _version(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "plugins": [{**asdict(h), "state": h.state} for h in health],
        "problems": [asdict(p) for p in problems],
        "host": host.model_dump(mode="json"),
        "abilities": abilities(host),
        "machine": asdict(machine),
        "meaning": meaning(host),
    }


def _print(health: list[Health], problems: list[Problem], host: Target, machine: Machine) -> None:
    from rich.padding import Padding
    from rich.text import Text

    from qm.cli.screen import show, table
    from qm.doctor import abilities, meaning

    show(f"quantized-model {_version()}, Python {platform.python_version()}, {platform.system()} {platform.machine()}")
    rows = table("plugin", "from", "state", "runs on")
    for h in health:
        rows.add_row(h.name, h.distribution, h.state, ", ".join(h.packages) or "nothing else")
    show("", rows, "")
    show(Text(f"{len(problems)} problem{'s' if len(problems) > 1 else ''}" if problems else "No clash.", style="bold"))
    for problem in problems:
        show(Padding(f"{problem.seen}.\n{problem.hint}", (0, 0, 0, 2)))

    gib = 1 << 30
    show("", Text("This machine", style="bold"))
    threads = f"{machine.cores} usable core{'s' if machine.cores > 1 else ''}"
    memory = f"{machine.memory / gib:.1f} GiB memory, {machine.available / gib:.1f} GiB of it free"
    have = ", ".join(f"{name} {_WORDS[value]}" for name, value in abilities(host).items())
    for line in (host.summary, f"{threads}, {memory}", have):
        show(Padding(line, (0, 0, 0, 2)))
    show("", Text("What that means for int8", style="bold"))
    for line in meaning(host):
        show(Padding(line, (0, 0, 0, 2)))


_WORDS = {True: "yes", False: "no", None: "not known"}


def _version() -> str:
    from importlib.metadata import version

    return version("quantized-model")
