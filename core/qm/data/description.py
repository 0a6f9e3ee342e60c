"""A data set described in a TOML file: where it is, how its values are prepared, where its labels are."""

from __future__ import annotations

import csv
import difflib
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import ConfigDict, Field, ValidationError, field_validator, model_validator

from qm.data import archive, label
from qm.data.image import Layout, Resize
from qm.data.label import Labels
from qm.errors import UsageError
from qm.strict import Strict, complaint

Numbers = float | tuple[float, ...]


class _Strict(Strict):
    model_config = ConfigDict(populate_by_name=True)


class FromName(_Strict):
    """Labels from the files' names, by the first group of a regular expression."""

    source: Literal["name"] = Field(alias="from")
    pattern: str = Field(description="its first group, or the whole match, is the label")
    classes: tuple[str, ...] | None = None

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as e:
            raise ValueError(f"{pattern!r} is no regular expression: {e}") from e
        return pattern

    def word(self, file: Path) -> str | None:
        """The label in the file's name, None where the pattern is not found."""
        found = re.search(self.pattern, file.name)
        return None if found is None else found[1] if found.re.groups else found[0]


class FromPrefix(_Strict):
    """Labels from the files' names, up to a separator."""

    source: Literal["prefix"] = Field(alias="from")
    separator: str = Field(default="_", min_length=1)
    classes: tuple[str, ...] | None = None

    def word(self, file: Path) -> str | None:
        """The part of the name before the separator, None where there is none."""
        head, found, _ = file.name.partition(self.separator)
        return head if found else None


class FromFolder(_Strict):
    """Labels from the names of the folders that the files lie in."""

    source: Literal["folder"] = Field(alias="from")
    classes: tuple[str, ...] | None = None

    def word(self, file: Path) -> str | None:
        """The name of the file's folder."""
        return file.parent.name


class FromCsv(_Strict):
    """Labels from a CSV file with a header line: by its ``file`` column for folders, in order for arrays."""

    source: Literal["csv"] = Field(alias="from")
    path: Path
    file: str = Field(default="file", description="column with the images' names")
    label: str = Field(default="label", description="column with the labels")
    classes: tuple[str, ...] | None = None

    def column(self, base: Path, name: str) -> list[str]:
        """The entries of a column.

        Raises:
            UsageError: there is no such file or column.
        """
        path = base / self.path
        try:
            with path.open(encoding="utf-8-sig", newline="") as f:
                table = csv.DictReader(f)
                rows = list(table)
                names = list(table.fieldnames or ())
        except FileNotFoundError:
            raise UsageError(f"the labels {str(path)!r} do not exist", hint="Set path under labels.") from None
        except (OSError, UnicodeDecodeError, csv.Error) as e:
            raise UsageError(f"the labels {str(path)!r} cannot be read: {e}", hint="Save them as CSV in UTF-8.") from e
        if name not in names:
            raise UsageError(
                f"the labels {str(path)!r} have no column {name!r}; they have {', '.join(map(repr, names)) or 'none'}",
                hint="Set file and label under labels to the columns' names.",
            )
        return [row[name] or "" for row in rows]


class FromArray(_Strict):
    """Labels from a ``.npy`` file."""

    source: Literal["npy"] = Field(alias="from")
    path: Path


LabelSource = Annotated[FromName | FromPrefix | FromFolder | FromCsv | FromArray, Field(discriminator="source")]


class Description(_Strict):
    """What a ``.toml`` says of a data set. Values become ``(value * scale - mean) / std``."""

    path: Path = Field(description="a folder of images, a .npz or a .npy, relative to the .toml")
    arrays: tuple[str, ...] | dict[str, str] | None = Field(
        default=None, description="arrays of a .npz, in the inputs' order with labels last, or by input name"
    )
    input: str | None = Field(default=None, description="the input that is prepared, where the model has several")
    size: tuple[int, int] | None = Field(default=None, description="height and width of images")
    resize: Resize = Field(default="crop", description="crop, stretch or pad images of another size")
    short_side: int | None = Field(default=None, ge=1, description="resize to this before cropping")
    layout: Layout | None = Field(default=None, description="of the arrays as stored, where the model's is another")
    model_layout: Layout | None = Field(default=None, description="of the model, where its shape does not tell")
    channel_order: Literal["RGB", "BGR"] = Field(default="RGB", description="what the model expects")
    dtype: str | None = Field(default=None, description="convert stored values to this first")
    scale: float = 1.0
    mean: Numbers = 0.0
    std: Numbers = 1.0
    labels: LabelSource | None = None
    limit: int | None = Field(default=None, ge=1, description="use this many samples, drawn at random")

    @field_validator("dtype")
    @classmethod
    def _is_numeric(cls, dtype: str | None) -> str | None:
        try:
            numeric = dtype is None or np.dtype(dtype).kind in "biuf"
        except TypeError:
            numeric = False
        if not numeric:
            raise ValueError(f"{dtype!r} is no numeric type of NumPy, such as 'float32'")
        return dtype

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.size is not None and min(self.size) < 1:
            raise ValueError(f"size must be positive, not {list(self.size)}")
        if any(value == 0 for value in np.atleast_1d(self.std)):
            raise ValueError("std must not be 0")
        if not np.isfinite([self.scale, *np.atleast_1d(self.mean), *np.atleast_1d(self.std)]).all():
            raise ValueError("scale, mean and std must be finite")
        return self

    @classmethod
    def read(cls, path: Path) -> Self:
        """The description in a TOML file; the data's path is made relative to it.

        Raises:
            UsageError: it is not TOML, or says what a description does not have.
        """
        try:
            found = cls.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
        except (OSError, UnicodeDecodeError) as e:
            raise UsageError(f"data set {str(path)!r} cannot be read: {e}", hint="Save it as text in UTF-8.") from e
        except tomllib.TOMLDecodeError as e:
            raise UsageError(f"data set {str(path)!r} is not TOML: {e}", hint="Correct the line it names.") from e
        except ValidationError as e:
            raise _wrong(path, e) from e
        return found.model_copy(update={"path": path.parent / found.path})

    def refuse_idle(self, kind: str, idle: Mapping[str, object]) -> None:
        """Raise UsageError where a setting, given as name and default, is set though it does nothing for the kind."""
        for name, default in idle.items():
            if getattr(self, name) != default:
                raise UsageError(f"{name} = {getattr(self, name)!r} does nothing for {kind}", hint="Remove the line.")


def _wrong(path: Path, error: ValidationError) -> UsageError:
    first = error.errors()[0]
    hint = f"It may say: {', '.join(Description.model_fields)}."
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(first["loc"][-1]), Description.model_fields, 1)
        hint = (f"Did you mean {near[0]!r}? " if near else "") + hint
    return UsageError(f"data set {str(path)!r} is wrong: {complaint(error)}", hint=hint)


def labels_of_files(
    source: LabelSource, files: Sequence[Path], folder: Path, base: Path, notes: list[str]
) -> tuple[Labels, tuple[str, ...] | None]:
    """Labels of files under ``folder``, and the classes' names where they have some.

    Raises:
        UsageError: a file has no label.
    """
    if isinstance(source, FromArray):
        return labels_in_order(source, len(files), base, notes)
    if isinstance(source, FromCsv):
        table = dict(zip(source.column(base, source.file), source.column(base, source.label), strict=True))
        words = [table.get(f.relative_to(folder).as_posix(), table.get(f.name)) for f in files]
        lacking = f"has no line in {str(base / source.path)!r}"
    else:
        in_folder = isinstance(source, FromFolder)
        words = [None if in_folder and f.parent == folder else source.word(f) for f in files]
        lacking = "lies in no sub-folder" if in_folder else "has no label in its name"
    for file, word in zip(files, words, strict=True):
        if not word:
            raise UsageError(f"{str(file)!r} {lacking}", hint="Correct labels, or move the file away.")
    return label.from_words([word for word in words if word], "the data set", source.classes)


def labels_in_order(
    source: LabelSource, count: int, base: Path, notes: list[str]
) -> tuple[Labels, tuple[str, ...] | None]:
    """Labels of samples that have no names, one after another.

    Raises:
        UsageError: the labels are to come from names, or are not as many as the samples.
    """
    if isinstance(source, FromArray):
        path = base / source.path
        if not path.is_file():
            raise UsageError(f"the labels {str(path)!r} do not exist", hint="Set path under labels.")
        stored = archive.read_npy(path)
        values = stored if isinstance(stored, np.ndarray) else stored[:]
        return label.from_array(values, count, repr(path.name), notes), None
    if not isinstance(source, FromCsv):
        raise UsageError(
            f"labels cannot come from the {source.source} of samples in an array",
            hint='Put them into the .npz as "y", or use labels = {from = "npy"} or {from = "csv"}.',
        )
    words = source.column(base, source.label)
    if len(words) != count:
        raise UsageError(
            f"there are {count} samples but {len(words)} labels in {str(source.path)!r}",
            hint="Give one label for each sample.",
        )
    return label.from_words(words, repr(source.path.name), source.classes)
