"""Which options of a method are a choice among a few values."""

from __future__ import annotations

from enum import Enum
from typing import Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo


def choices(options: type[BaseModel]) -> dict[str, tuple[object, ...]]:
    """The values of each option that is a choice, as a recipe spells them, the default first.

    An option of another kind, such as a number, is one between its default and its ``examples``, where it has both.
    """
    defaults = {name: field.get_default(call_default_factory=True) for name, field in options.model_fields.items()}
    found = {name: _values(field) for name, field in options.model_fields.items()}
    return {
        name: tuple(sorted(values, key=lambda value: value != _plain(defaults[name])))
        for name, values in found.items()
        if len(values) > 1
    }


def _values(field: FieldInfo) -> tuple[object, ...]:
    annotation = field.annotation
    if annotation is bool:
        return (False, True)
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return tuple(_plain(member) for member in annotation)
    return () if field.is_required() or not field.examples else (field.get_default(), *field.examples)


def _plain(value: object) -> object:
    return value.value if isinstance(value, Enum) else value
