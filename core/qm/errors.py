"""What can go wrong, each with a way out and an exit code."""

from __future__ import annotations

from collections.abc import Sequence


class QmError(Exception):
    """A failure the user can read: one sentence, and a hint in the imperative."""

    exit_code = 2

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class UsageError(QmError):
    """The request is wrong: a name, a path, an option or a data set."""


class RouteError(UsageError):
    """The request cannot be carried out; every reason is listed, not only the first."""

    def __init__(self, problems: Sequence[QmError]) -> None:
        first = problems[0]
        if len(problems) == 1:
            super().__init__(first.message, hint=first.hint)
        else:
            lines = [f"{i}. {p.message}" + (f". {p.hint}" if p.hint else "") for i, p in enumerate(problems, 1)]
            super().__init__(f"the request has {len(problems)} problems:\n" + "\n".join(lines))
        self.problems = tuple(problems)
        self.exit_code = max(p.exit_code for p in problems)


class NotReady(UsageError):
    """A package that the method needs is not installed."""


class Unsupported(QmError):
    """The method does not offer what was asked of it."""


class GoalMissed(QmError):
    """All was done, and a goal that the user set was not reached."""

    exit_code = 1


class AuditFailed(QmError):
    """What came out is not what the plan promised."""

    exit_code = 3


class PluginError(QmError):
    """A plugin raised, or broke its contract."""

    exit_code = 4

    def __init__(self, plugin: str, message: str, *, hint: str = "") -> None:
        super().__init__(f"plugin {plugin!r}: {message}", hint=hint)
        self.plugin = plugin
