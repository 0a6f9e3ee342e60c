"""Folders of images, and data sets described in a TOML file."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from qm.data import Samples, open_data
from qm.errors import QmError, Unsupported, UsageError
from qm.types import Array, TensorSpec


def spec(*shape: int | None, dtype: str = "float32") -> TensorSpec:
    return TensorSpec(name="image", shape=shape, dtype=dtype)


NCHW = [spec(1, 3, 6, 8)]
NHWC = [spec(None, 6, 8, 3)]
DATA = Path(os.environ.get("QM_DATA", Path(__file__).parents[3] / "shared")) / "data"


def pixels(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three PNG images, 6 high and 8 wide."""
    place = tmp_path / "images"
    place.mkdir()
    for i, name in enumerate(["0007_a.png", "0003_b.png", "0007_c.png"]):
        Image.fromarray(pixels(i, 6, 8, 3)).save(place / name)
    return place


def described(folder: Path, text: str, inputs: list[TensorSpec] | None = None, **more: Any) -> Samples:
    toml = folder.parent / "d.toml"
    toml.write_text(text)
    return open_data(toml, inputs or NCHW, **more)


def said(folder: Path, text: str = "", inputs: list[TensorSpec] | None = None) -> str:
    """What opening and walking the folder, or a description of it, says; the hint on the second line."""
    with pytest.raises(QmError) as e:
        for _ in described(folder, text, inputs) if text else open_data(folder, inputs or NCHW):
            pass
    assert e.value.hint
    assert "\n" not in e.value.message
    return str(e.value)


def test_images_come_in_the_order_of_their_names_in_the_models_layout(folder: Path) -> None:
    first, second, third = open_data(folder, NCHW)
    assert np.array_equal(first["image"][0], np.moveaxis(pixels(1, 6, 8, 3), -1, 0))
    assert np.array_equal(second["image"][0], np.moveaxis(pixels(0, 6, 8, 3), -1, 0))
    assert np.array_equal(third["image"][0], np.moveaxis(pixels(2, 6, 8, 3), -1, 0))
    assert first["image"].flags.c_contiguous


def test_an_nhwc_model_gets_nhwc(folder: Path) -> None:
    samples = open_data(folder, NHWC)
    assert np.array_equal(samples[0]["image"][0], pixels(1, 6, 8, 3))
    assert samples.notes == ["cast uint8 to float32"]


@pytest.mark.parametrize("shape", [(1, 1, 6, 8), (None, 6, 8, 1), (None, 6, 8)])
def test_a_model_of_one_channel_gets_grey(shape: tuple[int | None, ...], folder: Path) -> None:
    with Image.open(folder / "0003_b.png") as image:
        grey = np.array(image.convert("L"))
    sample = open_data(folder, [spec(*shape, dtype="uint8")])[0]["image"]
    assert np.array_equal(sample.reshape(6, 8), grey)


def test_images_of_another_size_are_cropped_in_the_middle_and_it_is_noted(folder: Path) -> None:
    wide = np.zeros((6, 16, 3), np.uint8)
    wide[:, 4:12] = pixels(5, 6, 8, 3)
    Image.fromarray(wide).save(folder / "0000_w.png")
    samples = open_data(folder, NHWC)
    assert np.array_equal(samples[0]["image"][0], pixels(5, 6, 8, 3))
    assert "resized and cropped 1 of 4 images to height 6, width 8" in samples.notes


def test_a_high_image_is_cropped_in_the_middle(folder: Path) -> None:
    high = np.zeros((16, 8, 3), np.uint8)
    high[5:11] = pixels(5, 6, 8, 3)
    Image.fromarray(high).save(folder / "0000_h.png")
    assert np.array_equal(open_data(folder, NHWC)[0]["image"][0], pixels(5, 6, 8, 3))


@pytest.mark.parametrize("mode", ["crop", "stretch", "pad"])
@pytest.mark.parametrize("size", [(6, 16), (12, 8), (50, 3), (1, 1)])
def test_every_way_of_resizing_gives_the_models_size(mode: str, size: tuple[int, int], folder: Path) -> None:
    Image.new("RGB", size[::-1], "white").save(folder / "0000_w.png")
    samples = described(folder, f'path = "images"\nresize = "{mode}"')
    assert samples[0]["image"].shape == (1, 3, 6, 8)
    if mode != "pad":
        assert samples[0]["image"].min() == 255


def test_padding_keeps_the_whole_image_between_black_bars(folder: Path) -> None:
    Image.new("RGB", (8, 2), "white").save(folder / "0000_w.png")
    image = described(folder, 'path = "images"\nresize = "pad"')[0]["image"][0, 0]
    assert np.array_equal(np.flatnonzero(image.min(axis=1) == 255), [2, 3])


def test_where_the_width_is_free_images_keep_their_proportions(folder: Path) -> None:
    Image.new("RGB", (40, 12)).save(folder / "0000_w.png")
    shapes = [s["image"].shape for s in open_data(folder, [spec(1, 3, 6, None)])]
    assert shapes == [(1, 3, 6, 20), (1, 3, 6, 8), (1, 3, 6, 8), (1, 3, 6, 8)]


def test_other_files_are_skipped_and_it_is_noted(folder: Path) -> None:
    for name in ("readme.txt", "labels.csv", ".hidden"):
        (folder / name).touch()
    assert "skipped 2 files that are no images" in open_data(folder, NCHW).notes


def test_the_fingerprint_of_a_copy_is_the_same(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy", copy_function=shutil.copyfile)
    assert open_data(folder, NCHW).fingerprint == open_data(tmp_path / "copy", NCHW).fingerprint


def test_the_fingerprint_covers_the_preparation(folder: Path) -> None:
    plain = described(folder, 'path = "images"').fingerprint
    assert plain == open_data(folder, NCHW).fingerprint
    assert plain != described(folder, 'path = "images"\nmean = 1').fingerprint


def test_mean_and_deviation_are_exact(folder: Path) -> None:
    samples = described(folder, 'path = "images"\nmean = 127\nstd = 128')
    want = (np.moveaxis(pixels(1, 6, 8, 3), -1, 0).astype(np.float32) - 127) / 128
    assert np.array_equal(samples[0]["image"][0], want)
    assert samples.notes == ["computed (value * 1 - 127) / 128"]


@pytest.mark.parametrize("inputs", [NCHW, NHWC])
def test_constants_of_each_channel_follow_the_layout(inputs: list[TensorSpec], folder: Path) -> None:
    text = 'path = "images"\nscale = 0.5\nmean = [1, 2, 3]\nstd = [2, 4, 8]'
    found = described(folder, text, inputs)[0]["image"][0]
    if inputs is NCHW:
        found = np.moveaxis(found, 0, -1)
    want = (pixels(1, 6, 8, 3).astype(np.float32) * 0.5 - [1, 2, 3]) / [2, 4, 8]
    assert np.array_equal(found, want)


def test_the_order_of_channels_can_be_swapped(folder: Path) -> None:
    found = described(folder, 'path = "images"\nchannel_order = "BGR"', NHWC)[0]["image"][0]
    assert np.array_equal(found, pixels(1, 6, 8, 3)[..., ::-1])


@pytest.mark.parametrize("labels", ['from = "name", pattern = "^(\\\\d{4})_"', 'from = "prefix"'])
def test_labels_are_read_from_names(labels: str, folder: Path) -> None:
    samples = described(folder, f'path = "images"\nlabels = {{{labels}}}')
    assert samples.labels is not None and samples.labels.tolist() == [3, 7, 7]


def test_labels_are_read_from_sub_folders(folder: Path) -> None:
    for name, place in [("0007_a.png", "dog"), ("0003_b.png", "cat"), ("0007_c.png", "dog")]:
        (folder / place).mkdir(exist_ok=True)
        (folder / name).rename(folder / place / name)
    samples = described(folder, 'path = "images"\nlabels = {from = "folder"}')
    assert samples.class_names == ("cat", "dog")
    assert samples.labels is not None and samples.labels.tolist() == [0, 1, 1]
    assert any("sub-folders" in note for note in open_data(folder, NCHW).notes)


def test_labels_are_read_from_csv(folder: Path) -> None:
    (folder.parent / "l.csv").write_text("name,kind\n0007_c.png,dog\n0003_b.png,cat\n0007_a.png,dog\n")
    labels = 'from = "csv", path = "l.csv", file = "name", label = "kind", classes = ["dog", "cat"]'
    samples = described(folder, f'path = "images"\nlabels = {{{labels}}}')
    assert samples.labels is not None and samples.labels.tolist() == [1, 0, 0]
    assert samples.class_names == ("dog", "cat")


def test_a_described_array_is_transposed_when_its_layout_is_said(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x_test=pixels(0, 4, 6, 8, 3), y_test=[0, 1, 2, 3])
    text = 'path = "d.npz"\narrays = ["x_test", "y_test"]\nlayout = "NHWC"\nscale = 0.0078125'
    samples = described(tmp_path / "d", text)
    assert np.array_equal(samples[3]["image"][0], np.moveaxis(pixels(0, 4, 6, 8, 3)[3], -1, 0) / np.float32(128))
    assert "transposed NHWC to NCHW" in samples.notes
    assert samples.labels is not None and samples.labels.tolist() == [0, 1, 2, 3]


def test_a_described_npy_takes_its_labels_from_another(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", pixels(0, 4, 3, 6, 8))
    np.save(tmp_path / "y.npy", [4, 5, 6, 7])
    samples = described(tmp_path / "d", 'path = "x.npy"\nlabels = {from = "npy", path = "y.npy"}')
    assert samples.labels is not None and samples.labels.tolist() == [4, 5, 6, 7]


def test_floats_become_integers_only_when_told(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.full((4, 3, 6, 8), 3.0))
    samples = described(tmp_path / "d", 'path = "x.npy"\ndtype = "uint8"', [spec(1, 3, 6, 8, dtype="uint8")])
    assert samples[0]["image"].dtype == np.uint8 and (samples[0]["image"] == 3).all()


def test_a_described_limit_holds_and_the_callers_wins(folder: Path) -> None:
    assert len(described(folder, 'path = "images"\nlimit = 1')) == 1
    assert len(described(folder, 'path = "images"\nlimit = 1', limit=2)) == 2


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    assert "holds no images: it is empty" in said(tmp_path)
    (tmp_path / "a.txt").touch()
    assert "holds no images: its 1 files are of other kinds" in said(tmp_path)


def test_a_file_that_is_no_image_is_found_at_opening(folder: Path) -> None:
    (folder / "0009_x.jpg").write_text("not an image")
    with pytest.raises(UsageError, match=r"0009_x.jpg' is not an image"):
        open_data(folder, NCHW)


def test_a_truncated_image_is_named(folder: Path) -> None:
    path = folder / "0000_t.png"
    Image.fromarray(pixels(1, 60, 80, 3)).save(path)
    path.write_bytes(path.read_bytes()[:5000])
    assert said(folder).startswith(f"image {str(path)!r} is damaged: ")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    damage=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4),
    kind=st.sampled_from(["png", "jpg", "gif", "bmp", "tiff", "webp", "ppm"]),
)
@pytest.mark.filterwarnings("ignore")
def test_a_damaged_image_gives_a_sample_or_a_sentence(tmp_path: Path, damage: list[tuple[int, int]], kind: str) -> None:
    folder = tmp_path / kind
    folder.mkdir(exist_ok=True)
    path = folder / f"a.{kind}"
    Image.fromarray(pixels(1, 6, 8, 3)).save(path)
    content = bytearray(path.read_bytes())
    for place, value in damage:
        content[place % len(content)] = value
    path.write_bytes(content)
    with contextlib.suppress(QmError):
        assert open_data(folder, NCHW)[0]["image"].shape == (1, 3, 6, 8)


def test_pixels_of_16_bits_are_refused(folder: Path) -> None:
    Image.fromarray(np.full((6, 8), 3000, np.uint16)).save(folder / "0000_d.png")
    assert "pixels of more than 8 bits" in said(folder)


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        ((None, 784), "expects [?, 784], which is no image"),
        ((1, 5, 6, 8), "does not tell where the channels are"),
        ((None, None, None, None), 'model_layout = "NCHW" or "NHWC"'),
    ],
)
def test_a_model_that_takes_no_images_is_said(shape: tuple[int | None, ...], text: str, folder: Path) -> None:
    assert text in said(folder, inputs=[spec(*shape)])


def test_a_fixed_batch_is_unsupported(folder: Path) -> None:
    with pytest.raises(Unsupported, match=r"fixed batch of 8, \[8, 3, 6, 8\]"):
        open_data(folder, [spec(8, 3, 6, 8)])


def test_a_free_model_takes_the_described_layout_and_size(folder: Path) -> None:
    text = 'path = "images"\nmodel_layout = "NCHW"\nsize = [4, 5]'
    assert described(folder, text, [spec(None, None, None, None)])[0]["image"].shape == (1, 3, 4, 5)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('path = "images"\nmaen = 1', "'maen': is unknown here\nDid you mean 'mean'?"),
        ("mean = 1", "'path': field required"),
        ('path = "images', "is not TOML"),
        ('path = "imagse"', "which does not exist"),
        ('path = "images"\nlimit = 0', "'limit': input should be greater than or equal to 1"),
        ('path = "images"\nstd = 0', "std must not be 0"),
        ('path = "images"\nmean = nan', "scale, mean and std must be finite"),
        ('path = "images"\nsize = [0, 4]', "size must be positive"),
        ('path = "images"\nsize = [4, 4]', "size = [4, 4] (height, width) is not what input 'image' takes"),
        ('path = "images"\nlayout = "NHWC"', "layout = 'NHWC' does nothing for a folder of images"),
        ('path = "images"\nlayout = "HWC"', "'layout': input should be 'NHWC' or 'NCHW'"),
        ('path = "images"\ndtype = "string"', "'string' is no numeric type of NumPy"),
        ('path = "images"\nmean = [1, 2]', "mean is for 2 channels, but the samples have 3"),
        ('path = "images"\ninput = "imgae"', "the model has no input 'imgae'"),
        ('path = "images"\nlabels = {from = "name", pattern = "("}', "is no regular expression"),
        ('path = "images"\nlabels = {from = "name", pattern = "^(x)"}', "has no label in its name"),
        ('path = "images"\nlabels = {from = "folder"}', "lies in no sub-folder"),
        ('path = "images"\nlabels = {from = "prefix", classes = ["0003", "0008"]}', "Did you mean '0008'?"),
        ('path = "images"\nlabels = {from = "csv", path = "none.csv"}', "do not exist"),
        ('path = "images"\nlabels = {from = "nmae"}', "'labels'"),
    ],
)
def test_a_wrong_description_says_what_is_wrong(text: str, complaint: str, folder: Path) -> None:
    assert complaint in said(folder, text)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('path = "d.npz"\nsize = [6, 8]', "size = (6, 8) does nothing for arrays"),
        ('path = "d.npz"\narrays = ["z"]', "'d.npz' has no array 'z'"),
        ('path = "d.npz"\narrays = {pixels = "x"}', "arrays names 'pixels', which is no input of the model"),
        ('path = "d.npz"\nlabels = {from = "folder"}', "labels cannot come from the folder of samples in an array"),
        ('path = "d.npz"\nlabels = {from = "csv", path = "l.csv"}', "there are 4 samples but 2 labels in 'l.csv'"),
        ('path = "d.npz"\nlabels = {from = "csv", path = "l.csv", label = "kind"}', "have no column 'kind'"),
        ('path = "d.npz"\ndtype = "int8"', "dtype = 'int8' cannot hold the values 0..255 of the data"),
    ],
)
def test_a_wrong_description_of_arrays_says_what_is_wrong(text: str, complaint: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.repeat(np.uint8([0, 255]), 288).reshape(4, 3, 6, 8))
    np.savez(tmp_path / "d.npz", x=np.tile(np.uint8([0, 255]), 288).reshape(4, 3, 6, 8))
    (tmp_path / "l.csv").write_text("label\n1\n2\n")
    assert complaint in said(tmp_path / "d", text)


def test_which_input_is_prepared_must_be_said_where_there_are_several(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", a=np.full((2, 4), 3.0), b=np.full((2, 4), 3.0))
    inputs = [TensorSpec(name=name, shape=(None, 4), dtype="float32") for name in "ab"]
    assert "mean is set, but the model has 2 inputs: a, b" in said(tmp_path / "d", 'path = "d.npz"\nmean = 1', inputs)
    sample = described(tmp_path / "d", 'path = "d.npz"\nmean = 1\ninput = "b"', inputs)[0]
    assert (sample["a"] == 3).all() and (sample["b"] == 2).all()


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the shared data (QM_DATA)")
def test_imagenet_names_give_the_class_indices(tmp_path: Path) -> None:
    text = f"path = '{DATA / 'imagenet224'}'\nmean = 127\nstd = 128\n"
    samples = described(
        tmp_path / "d", text + "labels = {from = 'name', pattern = '^(\\d{4})_'}", [spec(1, 3, 224, 224)]
    )
    assert len(samples) == 500
    assert samples.labels is not None and samples.labels.tolist() == list(range(0, 1000, 2))
    assert samples.notes == ["computed (value * 1 - 127) / 128"]
    assert samples[0]["image"].min() >= -127 / 128 and samples[0]["image"].max() <= 1


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the shared data (QM_DATA)")
def test_cifar_in_nchw_is_refused_with_the_way_out() -> None:
    with pytest.raises(UsageError, match="look like NHWC") as e:
        open_data(f"{DATA / 'cifar10.npz'}:x_test,y_test", [spec(1, 3, 32, 32)])
    assert 'layout = "NHWC"' in e.value.hint
