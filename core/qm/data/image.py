"""Folders of images, decoded one by one as they are wanted."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, UnidentifiedImageError

from qm.data.fit import Fit, text
from qm.data.source import Row
from qm.errors import Unsupported, UsageError
from qm.types import Array, TensorSpec

Layout = Literal["NHWC", "NCHW"]
Resize = Literal["crop", "stretch", "pad"]

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}

_DAMAGE = (
    UnidentifiedImageError,
    Image.DecompressionBombError,
    EOFError,
    IndexError,
    KeyError,
    OSError,
    OverflowError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
)


@dataclass(frozen=True)
class Frame:
    """What the model wants of an image: channels, layout, and height and width where they are fixed."""

    channels: int
    layout: Layout | None
    height: int | None
    width: int | None

    def size(self, image: Image.Image) -> tuple[int, int]:
        """``(height, width)`` that the image goes in at; where one is free the image keeps its proportions."""
        if self.height is None and self.width is None:
            return image.height, image.width
        height = self.height or max(1, round(image.height * (self.width or 1) / image.width))
        return height, self.width or max(1, round(image.width * height / image.height))


def layout_of(spec: TensorSpec) -> Layout | None:
    """The layout that an input's shape tells by its 1 or 3 channels, None where it does not tell."""
    if len(spec.shape) < 3:
        return None
    first, last = spec.shape[-3] in (1, 3), spec.shape[-1] in (1, 3)
    if first == last:
        return None
    return "NCHW" if first else "NHWC"


def frame_of(spec: TensorSpec, layout: Layout | None, size: tuple[int, int] | None) -> Frame:
    """What the input wants of an image, where the user may have said the layout and ``(height, width)``.

    Raises:
        UsageError: the input takes no images, the layout cannot be told, or the size is not the model's.
        Unsupported: the model takes a fixed batch of more than one.
    """
    shape = spec.shape
    if len(shape) == 4 and shape[0] not in (None, 1):
        raise Unsupported(
            f"input {spec.name!r} takes a fixed batch of {shape[0]}, {text(shape)}",
            hint="Export the model with a batch of 1 or of any length.",
        )
    layout = layout or layout_of(spec)
    if len(shape) == 3 and shape[0] in (None, 1) and shape[2] not in (1, 3):
        frame = Frame(1, None, shape[1], shape[2])
    elif len(shape) not in (3, 4):
        raise UsageError(
            f"input {spec.name!r} expects {text(shape)}, which is no image",
            hint="Give the samples in a .npz file.",
        )
    elif layout is None:
        raise UsageError(
            f"the shape of input {spec.name!r}, {text(shape)}, does not tell where the channels are",
            hint='Describe the images in a .toml with model_layout = "NCHW" or "NHWC".',
        )
    else:
        channels, height, width = shape[-3:] if layout == "NCHW" else (shape[-1], shape[-3], shape[-2])
        frame = Frame(channels or 3, layout, height, width)
    return _sized(frame, spec, size)


def _sized(frame: Frame, spec: TensorSpec, size: tuple[int, int] | None) -> Frame:
    if frame.channels not in (1, 3):
        raise UsageError(
            f"input {spec.name!r} expects {frame.channels} channels, but images give 1 or 3",
            hint="Give the samples in a .npz file.",
        )
    if size is None:
        return frame
    if frame.height not in (None, size[0]) or frame.width not in (None, size[1]):
        raise UsageError(
            f"size = {list(size)} (height, width) is not what input {spec.name!r} takes, {text(spec.shape)}",
            hint="Leave size out where the model's own is fixed.",
        )
    return Frame(frame.channels, frame.layout, *size)


@dataclass(frozen=True)
class Images:
    """Image files as samples for one input."""

    name: str
    folder: Path
    files: Sequence[Path]
    frame: Frame
    resize: Resize = "crop"
    short_side: int | None = None
    batched: bool = True

    @property
    def subjects(self) -> Mapping[str, str]:
        return {self.name: f"the folder {str(self.folder)!r}"}

    def __len__(self) -> int:
        return len(self.files)

    def walk(self, indices: Sequence[int]) -> Iterator[Row]:
        for index in indices:
            yield {self.name: self._decode(self.files[index])}

    def digests(self, indices: Sequence[int]) -> Iterator[bytes]:
        salt = repr((self.frame, self.resize, self.short_side)).encode()
        return (hashlib.sha256(self.files[index].read_bytes() + salt).digest() for index in indices)

    def check(self, indices: Sequence[int], fit: Fit) -> list[str]:
        """Headers are read, of every file: that finds files that are no images, and those of another size."""
        other = 0
        for index in indices:
            with _opened(self.files[index]) as image:
                other += (image.height, image.width) != self.frame.size(image)
        if not other:
            return []
        how = {"crop": "resized and cropped", "stretch": "stretched", "pad": "resized and padded"}[self.resize]
        size = f"height {self.frame.height or 'free'}, width {self.frame.width or 'free'}"
        return [f"{how} {other} of {len(indices)} images to {size}"]

    def _decode(self, path: Path) -> Array:
        """``(1, H, W, C)`` or ``(1, C, H, W)`` as the frame says, 0..255."""
        with _opened(path) as image:
            if image.mode.startswith(("I", "F")):
                raise UsageError(
                    f"image {str(path)!r} has {image.mode!r} pixels of more than 8 bits",
                    hint="Convert it to 8 bits, or give the samples in a .npz file.",
                )
            try:
                made = self._resized(image.convert("L" if self.frame.channels == 1 else "RGB"))
            except _DAMAGE as e:
                raise UsageError(
                    f"image {str(path)!r} is damaged: {e}", hint="Remove it from the folder, or replace it."
                ) from e
            pixels = np.array(made, dtype=np.uint8)
        if self.frame.layout is None:
            return pixels[None]
        pixels = pixels.reshape(1, *pixels.shape[:2], self.frame.channels)
        return np.moveaxis(pixels, -1, 1) if self.frame.layout == "NCHW" else pixels

    def _resized(self, image: Image.Image) -> Image.Image:
        height, width = self.frame.size(image)
        if (image.height, image.width) == (height, width):
            return image
        if self.resize == "stretch":
            return image.resize((width, height), Image.Resampling.BILINEAR)
        across, down = width / image.width, height / image.height
        ratio = min(across, down) if self.resize == "pad" else max(across, down)
        if self.short_side:
            ratio = max(ratio, self.short_side / min(image.width, image.height))
        scaled = (max(1, round(image.width * ratio)), max(1, round(image.height * ratio)))
        image = image.resize(scaled, Image.Resampling.BILINEAR)
        left, top = (image.width - width) // 2, (image.height - height) // 2
        return image.crop((left, top, left + width, top + height))


def _opened(path: Path) -> Image.Image:
    try:
        return Image.open(path)
    except _DAMAGE as e:
        reason = "is not an image" if isinstance(e, UnidentifiedImageError) else f"cannot be read: {e}"
        raise UsageError(f"{str(path)!r} {reason}", hint="Remove it from the folder, or replace it.") from e


def list_images(folder: Path, notes: list[str]) -> list[Path]:
    """The image files of a folder and its sub-folders, in the order of their names.

    Raises:
        UsageError: there are none.
    """
    files = sorted((f for f in folder.rglob("*") if f.is_file()), key=lambda f: f.relative_to(folder).as_posix())
    shown = [f for f in files if not any(part.startswith(".") for part in f.relative_to(folder).parts)]
    images = [f for f in shown if f.suffix.lower() in SUFFIXES]
    if not images:
        what = f"its {len(shown)} files are of other kinds" if shown else "it is empty"
        raise UsageError(
            f"the folder {str(folder)!r} holds no images: {what}",
            hint=f"Put files of these kinds into it: {', '.join(sorted(SUFFIXES))}.",
        )
    if skipped := len(shown) - len(images):
        notes.append(
            "skipped 1 file that is no image" if skipped == 1 else f"skipped {skipped} files that are no images"
        )
    return images
