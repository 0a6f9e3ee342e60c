"""The command line: picks one command, imports its module alone, and turns errors into sentences and exit codes."""

from __future__ import annotations

import argparse
import os
import sys
from typing import NoReturn

COMMANDS = {
    "quantize": "make a model smaller and faster, check it, and report",
    "tune": "find the smallest model within an allowed loss, over all methods and their options",
    "plan": "work out the recipe that quantize would run, and write it to a file",
    "benchmark": "time a model against another, with intervals",
    "compare": "set models of any formats side by side, and mark the Pareto front",
    "check": "hold reports against goals, for continuous integration",
    "report": "show reports as one page to look at, which opens from disk",
    "explain": "say why a quantized model is slower or worse, and try remedies",
    "inspect": "show the layers of a model file, and what each is really stored in",
    "plugins": "list the installed plugins and their methods",
    "show": "describe one method and its options",
    "targets": "list the devices that --target knows, and what is known of each",
    "doctor": "say what is installed, what clashes, and what this CPU can do",
    "demo": "quantize a small model three ways, offline, in under a minute",
}

VARIABLES = {
    "QM_BLOCK": "plugins to treat as not installed, separated by commas",
    "QM_WITH": "plugins to load for their hooks' sake, separated by commas",
    "QM_CACHE": "folder for converted models and interrupted trainings; the system's own place for caches by default",
    "QM_TARGETS": "folders with target files of your own, separated as in PATH",
    "NO_COLOR": "set to print without colours",
}


class Parser(argparse.ArgumentParser):
    """A parser whose complaints look like every other error of the project."""

    def error(self, message: str) -> NoReturn:
        """Print one sentence and a hint, and exit with 2."""
        print(f"error: {message}", file=sys.stderr)
        print(f"hint:  See {self.prog} --help.", file=sys.stderr)
        sys.exit(2)


def main(argv: list[str] | None = None) -> int:
    """Run one command; the exit code."""
    args = sys.argv[1:] if argv is None else argv
    _treat_termination_as_interrupt()
    try:
        code = _dispatch(args)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The reader is gone (qm plugins | head): that is no error, and Python must not complain at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt as e:
        print("interrupted: nothing half-written was left behind", file=sys.stderr)
        for note in getattr(e, "__notes__", ()):
            print(note, file=sys.stderr)
        return 130


def _treat_termination_as_interrupt() -> None:
    """Let SIGTERM unwind the stack as Ctrl-C does, so that temporary files go."""
    import signal
    import threading

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)


def _dispatch(args: list[str]) -> int:
    name = next((a for a in args if not a.startswith("-")), None)
    if not args or name is None or args[0].startswith("-"):
        return _top(args)
    if args[0] not in COMMANDS:
        import difflib

        near = difflib.get_close_matches(args[0], COMMANDS, 1)
        print(f"error: there is no command {args[0]!r}", file=sys.stderr)
        print(f"hint:  {f'Did you mean {near[0]!r}?' if near else 'See qm --help.'}", file=sys.stderr)
        return 2
    return _run(args[0], args[1:])


def _top(args: list[str]) -> int:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {summary}" for name, summary in COMMANDS.items()]
    variables = [f"  {name:<{width}}  {summary}" for name, summary in VARIABLES.items()]
    parser = Parser(
        prog="qm",
        usage="qm COMMAND ...",
        description="Make machine-learning models small and fast enough for the edge, and prove that they are right.",
        epilog="\n".join(
            ["commands:", *lines, "", "environment variables:", *variables, "", "qm COMMAND --help tells more."]
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    told = parser.parse_args(args)
    if told.version:
        from importlib.metadata import version

        print(f"qm {version('quantized-model')}")
    else:
        parser.print_help()
    return 0


def _run(name: str, args: list[str]) -> int:
    import importlib

    command = importlib.import_module(f"qm.cli.{name}")
    parser = Parser(
        prog=f"qm {name}", description=command.SUMMARY, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--traceback", action="store_true", help="show where an error came from")
    command.add(parser)
    told = parser.parse_args(args)
    from qm.errors import QmError

    try:
        return int(command.run(told))
    except QmError as e:
        if told.traceback:
            import traceback

            traceback.print_exception(e)
        print(f"error: {e.message}", file=sys.stderr)
        if e.hint:
            print(f"hint:  {e.hint}", file=sys.stderr)
        return e.exit_code


if __name__ == "__main__":
    sys.exit(main())
