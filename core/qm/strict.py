"""What files hold: values whose unknown keys are errors, and which nothing changes."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, ValidationError


class Strict(BaseModel):
    """A value that a file holds."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def complaint(error: ValidationError) -> str:
    """The first thing that a pydantic error says, as one clause: ``'stages.0.plugin': field required``."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    unknown = first["type"] == "extra_forbidden"
    what = "is unknown here" if unknown else first["msg"].removeprefix("Value error, ").splitlines()[0]
    return f"{where!r}: {what[0].lower()}{what[1:]}" if where else what
