"""What bad data gets: one sentence and a hint, before anything is run."""

from __future__ import annotations

import contextlib
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qm.data import open_data
from qm.errors import QmError, Unsupported, UsageError
from qm.types import Array, TensorSpec


def spec(*shape: int | None, name: str = "x", dtype: str = "float32") -> TensorSpec:
    return TensorSpec(name=name, shape=shape, dtype=dtype)


PAIR = [spec(None, 4)]
NCHW = [spec(1, 3, 8, 10, name="image")]


def said(data: Any, inputs: list[TensorSpec] | None = None, kind: type[QmError] = UsageError, **more: Any) -> str:
    """What opening and walking the data says, the hint on the second line."""
    with pytest.raises(kind) as e:
        for _ in open_data(data, inputs or PAIR, **more):
            pass
    assert e.value.hint
    assert "\n" not in e.value.message
    return str(e.value)


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".toml", ""])
def test_a_missing_path_is_named(suffix: str, tmp_path: Path) -> None:
    path = str(tmp_path / f"nothing{suffix}")
    assert said(path).startswith(f"data set {path!r} does not exist\nGive a .npz, a .npy, a folder of images")


def test_a_misspelt_path_is_guessed(tmp_path: Path) -> None:
    np.save(tmp_path / "train.npy", np.zeros((1, 4)))
    assert f"Did you mean {str(tmp_path / 'train.npy')!r}?" in said(str(tmp_path / "tarin.npy"))


def test_a_path_too_long_for_the_system_is_no_traceback() -> None:
    assert "does not exist" in said("x" * 5000)


def test_a_path_with_a_nul_is_no_traceback() -> None:
    assert "does not exist" in said("x\0y")


@pytest.mark.parametrize("suffix", [".npz", ".npy"])
def test_an_empty_file_is_named(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"d{suffix}"
    path.touch()
    assert said(path).startswith(f"data set {str(path)!r} is empty")


@pytest.mark.parametrize("suffix", [".npz", ".npy"])
def test_a_truncated_file_is_named(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"d{suffix}"
    (np.savez if suffix == ".npz" else np.save)(path, np.zeros((100, 4)))
    path.write_bytes(path.read_bytes()[:-500])
    assert "truncated" in said(path)


@pytest.mark.parametrize("suffix", [".npz", ".npy"])
def test_random_bytes_are_refused(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"d{suffix}"
    path.write_bytes(np.random.default_rng(0).bytes(1000))
    assert f"data set {str(path)!r} is no" in said(path)


def test_a_pickle_named_npy_is_refused(tmp_path: Path) -> None:
    import pickle

    (tmp_path / "d.npy").write_bytes(pickle.dumps(np.zeros((3, 4))))
    assert "is not NumPy's" in said(tmp_path / "d.npy")


@pytest.mark.parametrize("suffix", [".npz", ".npy"])
def test_objects_are_never_unpickled(suffix: str, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "exploded",))

    array = np.array([Bomb()] * 3, dtype=object)
    path = tmp_path / f"d{suffix}"
    np.savez(path, x=array) if suffix == ".npz" else np.save(path, array, allow_pickle=True)
    assert "holds Python objects (dtype 'object'), not numbers" in said(path)
    assert not (tmp_path / "exploded").exists()


def test_a_header_that_promises_more_than_the_archive_holds_loads_nothing(tmp_path: Path) -> None:
    header = {"descr": "<f8", "fortran_order": False, "shape": (10**12, 4)}
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(content, header)
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("x.npy", content.getvalue())
    assert "array 'x' ends before its last value" in said(tmp_path / "d.npz")


def test_an_archive_without_arrays_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("readme.txt", "nothing here")
    assert "holds no arrays" in said(tmp_path / "d.npz")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 10_000), value=st.integers(0, 255), cut=st.one_of(st.none(), st.integers(0, 10_000)))
@pytest.mark.parametrize("suffix", [".npz", ".npy", ".compressed.npz"])
def test_a_damaged_file_gives_samples_or_a_sentence(
    suffix: str, tmp_path: Path, place: int, value: int, cut: int | None
) -> None:
    path = tmp_path / f"d{suffix}"
    if suffix == ".npy":
        np.save(path, np.zeros((6, 4), np.float32))
    else:
        save = np.savez if suffix == ".npz" else np.savez_compressed
        save(path, x=np.zeros((6, 4), np.float32), y=np.arange(6))
    content = bytearray(path.read_bytes())
    content[place % len(content)] = value
    path.write_bytes(content[: cut % len(content)] if cut is not None else content)
    with contextlib.suppress(QmError):
        assert all(sample["x"].shape == (1, 4) for sample in open_data(path, PAIR))


def test_wrong_array_names_say_what_is_there_and_how_to_pick(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    np.savez(path, x_train=np.zeros((1, 4)), y_train=[0], x_test=np.zeros((1, 4)), y_test=[0])
    assert said(path, [spec(None, 4, name="image")]) == (
        "'d.npz' has no array for input 'image'; it has 'x_train', 'y_train', 'x_test', 'y_test'\n"
        f"Pick arrays, inputs first and labels last: {path}:x_train,y_train"
    )


def test_a_name_nearly_right_is_guessed(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", images=np.zeros((1, 4)), masks=np.zeros((1, 4)))
    assert "Did you mean 'images' for 'image'?" in said(tmp_path / "d.npz", [spec(None, 4, name="image")])


def test_a_picked_array_that_is_not_there_is_guessed(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x_test=np.zeros((1, 4)))
    assert said(f"{tmp_path / 'd.npz'}:x_tset") == (
        "'d.npz' has no array 'x_tset'\nDid you mean 'x_test'? It has 'x_test'."
    )


def test_too_many_picked_arrays_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", a=np.zeros((1, 4)), b=[0], c=[0])
    assert said(f"{tmp_path / 'd.npz'}:a,b,c").startswith("3 arrays were picked of 'd.npz' for a model of 1 input")


def test_one_array_for_two_inputs_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "d.npy", np.zeros((1, 4)))
    assert "the model has 2 inputs: a, b" in said(tmp_path / "d.npy", [spec(1, 4, name="a"), spec(1, 4, name="b")])


def test_nhwc_for_nchw_is_recognised() -> None:
    assert said(np.zeros((5, 8, 10, 3), np.float32), NCHW) == (
        "input 'image' expects float32 [1, 3, 8, 10], but the ndarray has samples of shape [8, 10, 3] (sample 0)\n"
        'The samples look like NHWC where the model wants NCHW. Describe them in a .toml with layout = "NHWC".'
    )


def test_nchw_for_nhwc_is_recognised() -> None:
    assert 'layout = "NCHW"' in said(np.zeros((5, 3, 8, 10), np.float32), [spec(None, 8, 10, 3)])


def test_another_size_is_said_axis_by_axis() -> None:
    assert "axis 2: 9 where 8 is expected" in said(np.zeros((5, 3, 9, 10), np.float32), NCHW)


def test_the_right_number_of_values_in_another_shape_is_said() -> None:
    assert "Reshape the samples to [3, 8, 10]" in said(np.zeros((5, 240), np.float32), NCHW)


def test_another_number_of_axes_is_said() -> None:
    assert "Give samples of 3 axes, [3, 8, 10]; these have 1." in said(np.zeros((5, 7), np.float32), NCHW)


def test_batches_in_a_list_are_recognised() -> None:
    assert "Give one sample at a time: 32 come together here." in said([np.zeros((32, 4), np.float32)])


def test_a_fixed_batch_is_unsupported() -> None:
    text = said(np.zeros((16, 4), np.float32), [spec(8, 4)], Unsupported)
    assert text == "input 'x' takes a fixed batch of 8, [8, 4]\nExport the model with a batch of 1 or of any length."


def test_a_sample_of_a_list_with_another_shape_is_numbered() -> None:
    assert "samples of shape [5] (sample 2)" in said([np.zeros(4), np.zeros(4), np.zeros(5)])


@pytest.mark.parametrize(
    ("array", "what"),
    [
        (np.array([["a"] * 4]), "strings"),
        (np.array([[b"a"] * 4]), "byte strings"),
        (np.array([[None] * 4]), "Python objects"),
        (np.zeros((1, 4), np.complex64), "complex numbers"),
        (np.zeros((1, 4), "M8[s]"), "dates"),
        (np.zeros(1, [("a", "f4")]), "records"),
    ],
)
def test_what_is_no_number_is_refused(array: Array, what: str) -> None:
    assert f"the ndarray holds {what}" in said(array)
    assert f"holds {what}" in said([array[0]])


def test_floats_for_an_integer_input_are_refused() -> None:
    text = said(np.zeros((1, 4), np.float32), [spec(None, 4, dtype="int64")])
    assert text.startswith("input 'x' expects int64, but the ndarray is float32") and 'dtype = "int64"' in text


def test_integers_out_of_range_are_refused() -> None:
    data = np.array([[0, 1, 2, 3], [0, 1, 300, 3]])
    text = said(data, [spec(None, 4, dtype="uint8")])
    assert text == "input 'x' expects uint8, but the ndarray holds 300 in sample 1\nGive values in 0..255."


def test_an_input_of_strings_is_unsupported() -> None:
    assert "input 'x' is of type 'string'" in said(np.zeros((1, 4)), [spec(None, 4, dtype="string")], Unsupported)


@pytest.mark.parametrize(("value", "what"), [(np.nan, "NaN"), (np.inf, "infinity"), (-np.inf, "infinity")])
@pytest.mark.parametrize("form", ["array", "list", "archive", "generator"])
def test_what_is_not_finite_is_found_at_opening(value: float, what: str, form: str, tmp_path: Path) -> None:
    data = np.zeros((9, 4), np.float32)
    data[6, 2] = data[7, 1] = value
    np.savez(tmp_path / "d.npz", x=data)
    given: Any = {"array": data, "list": list(data), "archive": tmp_path / "d.npz", "generator": iter(data)}[form]
    with pytest.raises(UsageError, match=f"holds {what} in sample 6"):
        open_data(given, PAIR)


def test_what_is_not_finite_in_a_large_file_is_found_on_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = np.zeros((9, 4), np.float32)
    data[6, 2] = np.nan
    np.save(tmp_path / "d.npy", data)
    monkeypatch.setattr("qm.data.archive._SMALL", 0)
    assert "'d.npy' holds NaN in sample 6" in said(tmp_path / "d.npy")


def test_what_is_not_finite_is_of_no_concern_outside_the_subset() -> None:
    data = np.zeros((1000, 4), np.float32)
    kept = open_data(data, PAIR, limit=3).indices
    data[[i for i in range(1000) if i not in kept]] = np.nan
    assert open_data(data, PAIR, limit=3).indices == kept


def test_a_value_too_large_for_the_models_dtype_is_said() -> None:
    text = said(np.full((1, 4), 1e6), [spec(None, 4, dtype="float16")])
    assert text.startswith("the ndarray holds 1e+06 in sample 0, too large for float16")


@pytest.mark.parametrize("data", [np.zeros((0, 4), np.float32), [], iter(()), (np.zeros((0, 4)), np.zeros(0, int))])
def test_no_samples_are_refused(data: Any) -> None:
    assert "has no samples" in said(data)


def test_one_sample_can_be_opened_but_not_split() -> None:
    samples = open_data(np.zeros((1, 4), np.float32), PAIR)
    with pytest.raises(UsageError, match=r"1 sample of .* cannot be split into 1 and a rest") as e:
        samples.split(1, 0)
    assert e.value.hint == "Give at least 2 samples."


@pytest.mark.parametrize("count", [0, 5, -1])
def test_a_split_that_leaves_one_side_empty_is_refused(count: int) -> None:
    with pytest.raises(UsageError, match=f"5 samples of .* cannot be split into {count} and a rest"):
        open_data(np.zeros((5, 4), np.float32), PAIR).split(count, 0)


@pytest.mark.parametrize("limit", [0, -3])
def test_a_limit_below_one_is_refused(limit: int) -> None:
    assert f"limit is {limit}" in said(np.zeros((5, 4)), limit=limit)


@pytest.mark.parametrize("labels", [[0, 1], [0, 1, 2, 3], 7])
def test_labels_of_another_length_are_refused(labels: Any) -> None:
    count = len(labels) if isinstance(labels, list) else 1
    assert f"{count} label" in said((np.zeros((3, 4)), labels)) and "for 3 samples" in said((np.zeros((3, 4)), labels))


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        (["cat", "dog", "cat"], "holds labels of dtype"),
        ([0.5, 1.0, 2.0], "holds 0.5 as the label of sample 0"),
        ([0.0, np.nan, 2.0], "holds nan as the label of sample 1"),
        ([0, 1, -1], "holds -1 as the label of sample 2"),
        ([[1, 0], [0, 1], [1, 1]], "not one-hot (sample 2)"),
        (np.zeros((3, 2, 2)), "holds labels of shape [3, 2, 2], not one a sample"),
    ],
)
def test_labels_that_are_no_class_indices_are_refused(labels: Any, text: str) -> None:
    assert text in said((np.zeros((3, 4)), labels))


def test_inputs_of_different_lengths_are_refused() -> None:
    data = {"a": np.zeros((3, 4)), "b": np.zeros((4, 4))}
    text = said(data, [spec(1, 4, name="a"), spec(1, 4, name="b")])
    assert text.startswith("array 'a' of the dict has 3 samples but array 'b' of the dict has 4")


def test_a_ragged_list_is_refused() -> None:
    assert "sample 0 of the list cannot be an array" in said([[[1, 2], [3]]])


@pytest.mark.parametrize("data", [3, None, object()])
def test_what_is_no_data_set_is_refused(data: Any) -> None:
    assert "which is no data set" in said(data)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("1,2,3,4")
    assert "is no data set that can be read" in said(tmp_path / "d.csv")


def test_a_dataset_that_gives_less_than_it_promised_is_found_out() -> None:
    class Short:
        labels = None

        def __len__(self) -> int:
            return 3

        def __iter__(self) -> Any:
            return iter([{"x": np.zeros((1, 4))}] * 2)

    assert "the Short gave 2 samples this time and 3 the first time" in said(Short())
