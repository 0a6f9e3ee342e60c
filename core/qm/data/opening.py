"""Opens whatever names a data set."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

from qm import function
from qm.data import archive, label
from qm.data.choice import Choice, choose, pick
from qm.data.description import Description, Numbers, labels_in_order, labels_of_files
from qm.data.fit import Fit, refuse_alien, text
from qm.data.image import Images, frame_of, layout_of, list_images
from qm.data.memory import Opened, as_array, from_arrays, labels_of, open_object
from qm.data.preparation import Preparation
from qm.data.samples import Samples
from qm.data.source import Prepared, Rows
from qm.errors import UsageError
from qm.types import Array, Dataset, TensorSpec

_PICK = re.compile(r"(?P<path>.+\.npz):(?P<names>[^/\\]*)", re.IGNORECASE)
_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")

Spec = str | Path | Array | dict[str, Array] | tuple[Array, ...] | list[Any] | Dataset | Iterable[Any]

_FORMS = "Give a .npz, a .npy, a folder of images, a .toml that describes one, or package.module:function."


def open_data(spec: Spec, inputs: Sequence[TensorSpec], *, limit: int | None = None) -> Samples:
    """The data set that ``spec`` is or names, fitted to a model's inputs.

    Where ``limit`` is less than there are, that many are drawn at random, always the same; of an iterable without a
    length, the first.

    Raises:
        UsageError: there is no such data set, or it is not what the model wants.
        Unsupported: the model takes a fixed batch of more than one.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"limit is {limit}, but a data set has 1 sample or more", hint="Give 1 or more, or none.")
    fit = Fit(inputs)
    if isinstance(spec, Samples) and spec.has({one.name for one in inputs}):
        samples = spec.refit(inputs)
    elif isinstance(spec, str | Path):
        named = str(spec)
        try:
            opened, limit = _open_named(named, inputs, fit, limit)
        except OSError as e:
            reason = (e.strerror or str(e)).lower()
            raise UsageError(f"data set {named!r} cannot be read: {reason}", hint="Check its rights.") from e
        samples = _samples(opened, fit, named)
    else:
        kind = f"{type(spec).__name__} in memory"
        samples = _samples(open_object(spec, inputs, fit, f"the {type(spec).__name__}", limit=limit), fit, kind)
    if limit is not None and len(samples):
        samples = samples.take(limit)
    samples.check()
    return samples


def _samples(opened: Opened, fit: Fit, named: str) -> Samples:
    return Samples(
        opened.source,
        fit,
        named=named,
        labels=opened.labels,
        class_names=opened.class_names,
        notes=opened.notes,
    )


def _open_named(name: str, inputs: Sequence[TensorSpec], fit: Fit, limit: int | None) -> tuple[Opened, int | None]:
    path = Path(name)
    if os.path.exists(name):
        if path.suffix.lower() == ".toml" and path.is_file():
            description = Description.read(path)
            return _open_described(description, path, inputs), limit or description.limit
        return open_path(path, inputs), limit
    picked = _PICK.fullmatch(name)
    if picked and os.path.isfile(picked["path"]):
        names = tuple(part.strip() for part in picked["names"].split(","))
        return open_archive(Path(picked["path"]), inputs, names), limit
    if not picked and _FUNCTION.fullmatch(name):
        return _open_function(name, inputs, fit, limit), limit
    raise _missing(picked["path"] if picked else name)


def _missing(name: str) -> UsageError:
    path = Path(name)
    siblings = [f.name for f in path.parent.iterdir()] if os.path.isdir(path.parent) else []
    near = difflib.get_close_matches(path.name, siblings, 1)
    guess = f"Did you mean {str(path.parent / near[0])!r}? " if near else ""
    return UsageError(f"data set {name!r} does not exist", hint=guess + _FORMS)


def open_path(path: Path, inputs: Sequence[TensorSpec]) -> Opened:
    """A folder of images, a ``.npz`` or a ``.npy``."""
    if path.is_dir():
        return _open_folder(path, inputs, Description(path=path))
    if path.suffix.lower() == ".npz":
        return open_archive(path, inputs)
    if path.suffix.lower() == ".npy":
        return _open_npy(path, inputs)
    raise UsageError(f"{str(path)!r} is no data set that can be read", hint=_FORMS)


def open_archive(
    path: Path, inputs: Sequence[TensorSpec], names: Sequence[str] | dict[str, str] | None = None
) -> Opened:
    """The arrays of a ``.npz``, chosen by the inputs' names or picked by ``names``."""
    headers = archive.headers(path)
    available = list(headers)
    where = repr(path.name)
    if names is None:
        choice = choose(available, inputs, where, hint=_pick_hint(path, available))
    elif isinstance(names, dict):
        choice = _by_input(names, available, inputs, where)
    else:
        choice = pick(names, available, inputs, where)
    subjects = {name: f"array {array!r} of {where}" for name, array in choice.inputs.items()}
    for name, array in choice.inputs.items():
        refuse_alien(headers[array].dtype, subjects[name])
    notes = list(choice.notes)
    arrays: dict[str, Rows] = {name: archive.read_npz(path, array) for name, array in choice.inputs.items()}
    source = from_arrays(arrays, inputs, subjects, notes)
    labels = None
    if choice.labels:
        subject = f"array {choice.labels!r} of {where}"
        refuse_alien(headers[choice.labels].dtype, subject)
        labels = label.from_array(archive.read_npz(path, choice.labels), len(source), subject, notes)
    return Opened(source=source, labels=labels, notes=notes)


def _by_input(names: dict[str, str], available: Sequence[str], inputs: Sequence[TensorSpec], where: str) -> Choice:
    wanted = [spec.name for spec in inputs]
    unknown = [name for name in names if name not in (*wanted, "labels")]
    lacking = [name for name in wanted if name not in names]
    if unknown or lacking:
        what = f"names {unknown[0]!r}, which is no input" if unknown else f"lacks input {lacking[0]!r}"
        raise UsageError(f"arrays {what} of the model", hint=f"The inputs are: {', '.join(wanted)}.")
    ordered = [names[name] for name in wanted] + ([names["labels"]] if "labels" in names else [])
    return pick(ordered, available, inputs, where)


def _pick_hint(path: Path, available: Sequence[str]) -> str:
    """A pair such as ``x_train,y_train`` where there is one."""
    for name in available:
        partner = re.sub(r"^x", "y", name)
        if partner != name and partner in available:
            return f"Pick arrays, inputs first and labels last: {path}:{name},{partner}"
    return f"Pick arrays, inputs first and labels last: {path}:{','.join(available[:1])}"


def _open_npy(path: Path, inputs: Sequence[TensorSpec]) -> Opened:
    if len(inputs) > 1:
        raise UsageError(
            f"{str(path)!r} holds one array, but the model has {len(inputs)} inputs: "
            + ", ".join(spec.name for spec in inputs),
            hint="Put one array for each input into a .npz.",
        )
    notes: list[str] = []
    subjects = {inputs[0].name: repr(path.name)}
    source = from_arrays({inputs[0].name: archive.read_npy(path)}, inputs, subjects, notes)
    return Opened(source=source, notes=notes)


def _open_folder(folder: Path, inputs: Sequence[TensorSpec], said: Description, base: Path = Path()) -> Opened:
    if len(inputs) > 1:
        raise UsageError(
            f"the folder {str(folder)!r} gives images for one input, but the model has {len(inputs)}: "
            + ", ".join(spec.name for spec in inputs),
            hint="Give the samples in a .npz file.",
        )
    notes: list[str] = []
    spec = inputs[0]
    files = list_images(folder, notes)
    frame = frame_of(spec, said.model_layout, said.size)
    labels, class_names = None, None
    if said.labels is not None:
        labels, class_names = labels_of_files(said.labels, files, folder, base, notes)
    elif any(f.parent != folder for f in files):
        notes.append('took images from sub-folders; labels = {from = "folder"} in a .toml makes their names labels')
    source = Images(spec.name, folder, files, frame, said.resize, said.short_side)
    return Opened(source=source, labels=labels, class_names=class_names, notes=notes)


def _open_described(said: Description, toml: Path, inputs: Sequence[TensorSpec]) -> Opened:
    if not said.path.exists():
        raise UsageError(f"{str(toml)!r} names {str(said.path)!r}, which does not exist", hint="Correct its path.")
    spec = _prepared_input(said, inputs)
    if said.path.is_dir():
        said.refuse_idle("a folder of images", {"arrays": None, "layout": None})
        opened = _open_folder(said.path, inputs, said, toml.parent)
        came = wanted = cast(Images, opened.source).frame.layout
    else:
        said.refuse_idle("arrays", {"size": None, "short_side": None, "resize": "crop"})
        opened = _open_arrays(said, toml, inputs)
        came, wanted = said.layout, said.model_layout or (layout_of(spec) if spec else None)
        if spec and came and not wanted:
            raise UsageError(
                f"the shape of input {spec.name!r}, {text(spec.shape)}, does not tell where the channels are",
                hint='Set model_layout = "NCHW" or "NHWC" beside layout.',
            )
    preparation = Preparation(
        dtype=said.dtype,
        layout=came,
        wanted=wanted,
        swap=said.channel_order == "BGR",
        scale=said.scale,
        mean=_tuple(said.mean),
        std=_tuple(said.std),
    )
    if spec is None or not preparation.notes:
        return opened
    source = Prepared(opened.source, spec.name, preparation, preparation.notes)
    return Opened(source=source, labels=opened.labels, class_names=opened.class_names, notes=opened.notes)


def _open_arrays(said: Description, toml: Path, inputs: Sequence[TensorSpec]) -> Opened:
    if said.path.suffix.lower() == ".npz":
        opened = open_archive(said.path, inputs, said.arrays)
    else:
        said.refuse_idle("a .npy", {"arrays": None})
        opened = open_path(said.path, inputs)
    if said.labels is None:
        return opened
    labels, class_names = labels_in_order(said.labels, len(opened.source), toml.parent, opened.notes)
    return Opened(source=opened.source, labels=labels, class_names=class_names, notes=opened.notes)


def _prepared_input(said: Description, inputs: Sequence[TensorSpec]) -> TensorSpec | None:
    """The input that the description prepares, None where it prepares none."""
    names = [spec.name for spec in inputs]
    if said.input is not None and said.input not in names:
        raise UsageError(f"the model has no input {said.input!r}", hint=f"Its inputs are: {', '.join(names)}.")
    if said.input is None and len(inputs) > 1:
        defaults = {name: field.default for name, field in Description.model_fields.items()}
        for name in ("dtype", "layout", "channel_order", "scale", "mean", "std"):
            if getattr(said, name) != defaults[name]:
                raise UsageError(
                    f"{name} is set, but the model has {len(inputs)} inputs: {', '.join(names)}",
                    hint="Say with input which of them it is for.",
                )
        return None
    return inputs[names.index(said.input) if said.input else 0]


def _tuple(value: Numbers) -> tuple[float, ...]:
    return value if isinstance(value, tuple) else (value,)


def _open_function(name: str, inputs: Sequence[TensorSpec], fit: Fit, limit: int | None) -> Opened:
    found = function.find(name)
    value = function.call(found, name)
    where = f"function {name!r}"

    def again() -> Iterable[object]:
        return cast(Iterable[object], function.call(found, name))

    labels = labels_of(found)
    one_shot = hasattr(value, "__next__")
    opened = open_object(value, inputs, fit, where, limit=limit, again=again if one_shot else None)
    if opened.labels is not None or labels is None:
        return opened
    array = as_array(labels, f"the labels of {where}")
    if one_shot and len(opened.source) == limit:
        array = array[:limit]
    notes = list(opened.notes)
    indices = label.from_array(array, len(opened.source), f"labels of {where}", notes)
    return Opened(source=opened.source, labels=indices, notes=notes)
