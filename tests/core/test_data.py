"""What data sets of arrays, files and the user's own code become."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.data import Samples, batches, open_data, suspicion
from qm.errors import UsageError
from qm.types import Array, Dataset, TensorSpec


def spec(*shape: int | None, name: str = "x", dtype: str = "float32") -> TensorSpec:
    return TensorSpec(name=name, shape=shape, dtype=dtype)


PAIR = [spec(None, 4)]
DIGIT = spec(None, 28, 28, 1, name="image")


def rows(count: int, *shape: int) -> Array:
    return np.arange(count * int(np.prod(shape)), dtype=np.float32).reshape(count, *shape)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """The name of a module in the current folder, a new one for each test."""
    monkeypatch.chdir(tmp_path)
    name = f"mydata_{abs(hash(request.node.name))}"
    text = """
        import numpy as np
        calls = []
        def arrays(): return np.ones((3, 4), np.float32), [0, 1, 2]
        def generator():
            calls.append(1)
            for i in range(5): yield np.full(4, i, np.float32)
        generator.labels = [0, 1, 0, 1, 0]
        def endless():
            i = 0
            while True:
                yield {"x": np.full((1, 4), i, np.float32)}
                i += 1
        once = iter([np.zeros(4), np.ones(4)])
        def used_up(): return once
        def broken(): raise KeyError("speech")
        def broken_later():
            yield np.zeros(4)
            raise RuntimeError("the disk is gone")
        number = 3
    """
    import textwrap

    (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
    return name


def values(samples: Samples, name: str = "x") -> Array:
    return np.concatenate([sample[name] for sample in samples])


def test_samples_are_a_dataset() -> None:
    assert isinstance(open_data(rows(3, 4), PAIR), Dataset)


def test_each_sample_has_a_batch_axis_of_one_and_the_models_dtype() -> None:
    sample = open_data(rows(3, 4).astype(np.float64), PAIR)[1]
    assert sample["x"].shape == (1, 4)
    assert sample["x"].dtype == np.float32


def test_an_archive_with_the_inputs_names_is_read_by_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", a=rows(3, 4), b=rows(3, 2) + 100, y=[2, 1, 0])
    samples = open_data(tmp_path / "d.npz", [spec(1, 2, name="b"), spec(1, 4, name="a")])
    assert np.array_equal(values(samples, "a"), rows(3, 4))
    assert np.array_equal(values(samples, "b"), rows(3, 2) + 100)
    assert samples.labels is not None and samples.labels.tolist() == [2, 1, 0]
    assert samples.notes == []


def test_the_only_array_that_is_no_labels_goes_to_the_only_input(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", data=rows(3, 4), labels=[2, 1, 0])
    samples = open_data(tmp_path / "d.npz", PAIR)
    assert samples.notes == ["took array 'data' as input 'x'"]
    assert samples.labels is not None and samples.labels.tolist() == [2, 1, 0]


def test_arrays_are_picked_in_order_with_the_labels_last(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x_a=rows(2, 4), y_a=[0, 0], x_b=rows(3, 4) + 9, y_b=[3, 4, 5])
    samples = open_data(f"{tmp_path / 'd.npz'}:x_b,y_b", PAIR)
    assert np.array_equal(values(samples), rows(3, 4) + 9)
    assert samples.labels is not None and samples.labels.tolist() == [3, 4, 5]


def test_picked_arrays_named_as_the_inputs_go_by_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", a=rows(3, 4), b=rows(3, 4) + 100)
    samples = open_data(f"{tmp_path / 'd.npz'}:b,a", [spec(1, 4, name="a"), spec(1, 4, name="b")])
    assert samples[0]["a"][0, 0] == 0


def test_a_small_and_a_large_npy_give_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "d.npy", rows(7, 4))
    small = open_data(tmp_path / "d.npy", PAIR)
    monkeypatch.setattr("qm.data.archive._SMALL", 0)
    large = open_data(tmp_path / "d.npy", PAIR)
    assert np.array_equal(values(small), rows(7, 4))
    assert np.array_equal(values(large), rows(7, 4))
    assert large.fingerprint == small.fingerprint


def test_an_npy_in_fortran_order_is_read_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "d.npy", np.asfortranarray(rows(7, 4)))
    monkeypatch.setattr("qm.data.archive._SMALL", 0)
    assert np.array_equal(values(open_data(tmp_path / "d.npy", PAIR)), rows(7, 4))


def test_integers_are_cast_and_it_is_noted() -> None:
    samples = open_data(np.array([[0, 255, 7, 9]], dtype=np.uint8), PAIR)
    assert samples.notes == ["cast uint8 to float32"]
    assert samples[0]["x"].tolist() == [[0.0, 255.0, 7.0, 9.0]]


def test_doubles_are_cast_and_it_is_noted() -> None:
    assert open_data(np.zeros((2, 4)), PAIR).notes == ["cast float64 to float32"]


@pytest.mark.parametrize("shape", [(28, 28, 1), (1, 28, 28)])
def test_a_lacking_channel_axis_is_added_and_noted(shape: tuple[int, ...]) -> None:
    samples = open_data(rows(3, 28, 28), [spec(1, *shape)])
    assert samples.notes == ["added the channel axis"]
    assert np.array_equal(values(samples), rows(3, 28, 28).reshape(3, *shape))


def test_images_are_flattened_where_the_model_takes_a_vector_of_that_length() -> None:
    samples = open_data(rows(3, 28, 28), [spec(None, 784)])
    assert samples.notes == ["flattened [28, 28] to [784]"]
    assert np.array_equal(values(samples), rows(3, 784))


def test_an_array_that_is_one_sample_gets_its_batch_axis() -> None:
    samples = open_data(rows(3, 5, 5), [spec(1, 3, 5, 5)])
    assert len(samples) == 1
    assert samples.notes == ["took the ndarray as one sample and added the batch axis"]


def test_samples_of_a_list_get_their_batch_axis() -> None:
    samples = open_data([np.zeros(4, np.float32), np.ones((1, 4), np.float32)], PAIR)
    assert [s["x"].shape for s in samples] == [(1, 4), (1, 4)]
    assert samples.notes == ["added the batch axis"]


def test_samples_of_a_list_may_differ_where_the_model_takes_any_length() -> None:
    samples = open_data([np.zeros((1, n), np.int64) for n in (3, 5)], [spec(None, None, dtype="int64")])
    assert [s["x"].shape for s in samples] == [(1, 3), (1, 5)]


def test_an_input_without_a_batch_axis_is_fed_as_it_is() -> None:
    inputs = [spec(2, 1, 128, name="state"), spec(name="rate", dtype="int64")]
    samples = open_data({"state": rows(3, 2, 1, 128), "rate": np.full(3, 16000)}, inputs)
    assert samples[0]["state"].shape == (2, 1, 128)
    assert samples[0]["rate"].shape == ()


def test_one_hot_labels_become_indices_and_it_is_noted() -> None:
    samples = open_data((rows(3, 4), np.eye(3)[[2, 0, 1]]), PAIR)
    assert samples.labels is not None and samples.labels.tolist() == [2, 0, 1]
    assert "took one-hot labels of 3 classes to class indices" in samples.notes


def test_pairs_in_a_list_are_samples_with_labels() -> None:
    samples = open_data([(np.zeros(4), 7), (np.ones(4), 8)], PAIR)
    assert samples.labels is not None and samples.labels.tolist() == [7, 8]


def test_a_one_shot_iterator_can_be_walked_again() -> None:
    samples = open_data((np.full(4, i, np.float32) for i in range(3)), PAIR)
    assert np.array_equal(values(samples), values(samples))
    assert len(samples) == 3
    assert "kept the 3 samples of a one-shot iterator in memory" in samples.notes


def test_any_dataset_is_taken_with_its_labels() -> None:
    class Own:
        labels = np.array([5, 6], dtype=np.int64)

        def __len__(self) -> int:
            return 2

        def __iter__(self) -> Iterator[dict[str, Array]]:
            return iter([{"x": np.zeros((1, 4), np.float32)}, {"x": np.ones((1, 4), np.float32)}])

    samples = open_data(Own(), PAIR)
    assert values(samples)[:, 0].tolist() == [0, 1]
    assert samples.labels is not None and samples.labels.tolist() == [5, 6]


def test_samples_opened_before_can_be_opened_for_another_model() -> None:
    first = open_data(rows(3, 4), PAIR)
    second = open_data(first, [spec(1, 1, 4)])
    assert second[2]["x"].tolist() == [[[8, 9, 10, 11]]]


def test_samples_opened_before_go_to_an_input_of_another_name() -> None:
    first = open_data(rows(3, 4), PAIR)
    assert np.array_equal(values(open_data(first, [spec(1, 4, name="z")]), "z"), rows(3, 4))


def test_a_function_may_return_arrays(module: str) -> None:
    samples = open_data(f"{module}:arrays", PAIR)
    assert len(samples) == 3
    assert samples.labels is not None and samples.labels.tolist() == [0, 1, 2]


def test_a_function_that_is_a_generator_is_called_again_for_each_pass(module: str) -> None:
    samples = open_data(f"{module}:generator", PAIR)
    assert values(samples)[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert values(samples)[:, 0].tolist() == [0, 1, 2, 3, 4]


def test_a_functions_labels_are_taken(module: str) -> None:
    samples = open_data(f"{module}:generator", PAIR)
    assert samples.labels is not None and samples.labels.tolist() == [0, 1, 0, 1, 0]


def test_a_limit_cuts_the_labels_of_a_generator_too(module: str) -> None:
    samples = open_data(f"{module}:generator", PAIR, limit=2)
    assert samples.labels is not None and samples.labels.tolist() == [0, 1]


def test_a_limit_cuts_the_labels_of_any_iterable_too() -> None:
    class Own:
        labels = (0, 1, 2)

        def __iter__(self) -> Iterator[Array]:
            return iter(rows(3, 4))

    samples = open_data(Own(), PAIR, limit=2)
    assert samples.labels is not None and samples.labels.tolist() == [0, 1]


def test_a_limit_makes_an_endless_generator_good(module: str) -> None:
    assert values(open_data(f"{module}:endless", PAIR, limit=3))[:, 0].tolist() == [0, 1, 2]


def test_a_limit_on_a_stream_takes_the_first_and_says_so(module: str) -> None:
    assert "took the first 2 samples" in open_data(f"{module}:generator", PAIR, limit=2).notes


def test_a_stream_is_left_where_the_last_wanted_sample_came() -> None:
    given = []

    class Watched:
        labels = None

        def __len__(self) -> int:
            return 100

        def __iter__(self) -> Iterator[dict[str, Array]]:
            for i in range(100):
                given.append(i)
                yield {"x": np.zeros((1, 4), np.float32)}

    samples = open_data(Watched(), PAIR).subset([0, 2])
    given.clear()
    assert len(list(samples)) == 2
    assert given == [0, 1, 2]


def test_a_stream_gives_its_samples_in_any_order(module: str) -> None:
    samples = open_data(f"{module}:generator", PAIR)
    assert values(samples.subset([3, 0, 3]))[:, 0].tolist() == [3, 0, 3]
    assert samples[-1]["x"][0, 0] == 4


def test_a_limit_draws_the_same_samples_each_time_and_says_so() -> None:
    first, second = (open_data(rows(50, 4), PAIR, limit=5) for _ in range(2))
    assert len(first) == 5
    assert first.indices == second.indices
    assert first.notes == ["took 5 of 50 samples, drawn at random with seed 0"]


def test_a_subset_of_a_subset_keeps_the_numbers_of_the_whole() -> None:
    samples = open_data((rows(10, 4), np.arange(10)), PAIR).subset(range(4, 10)).subset([1, 3])
    assert samples.indices == (5, 7)
    assert samples.labels is not None and samples.labels.tolist() == [5, 7]
    assert samples[0]["x"][0, 0] == 20


def test_a_split_of_labelled_samples_keeps_the_proportions() -> None:
    first, rest = open_data((rows(100, 4), np.repeat([0, 1, 2], [50, 30, 20])), PAIR).split(10, seed=3)
    assert first.labels is not None and np.bincount(first.labels).tolist() == [5, 3, 2]
    assert rest.labels is not None and np.bincount(rest.labels).tolist() == [45, 27, 18]


def test_what_the_proportions_leave_goes_to_the_largest_remainder() -> None:
    first, _ = open_data((rows(10, 4), np.repeat([0, 1, 2], [3, 5, 2])), PAIR).split(4, seed=0)
    assert first.labels is not None and np.bincount(first.labels).tolist() == [1, 2, 1]


@given(
    labels=st.lists(st.integers(0, 4), min_size=2, max_size=60),
    share=st.floats(0, 1),
    seed=st.integers(0, 2**31),
    labelled=st.booleans(),
)
def test_a_split_gives_each_sample_to_one_side(labels: list[int], share: float, seed: int, labelled: bool) -> None:  # noqa: FBT001
    count = 1 + int(share * (len(labels) - 2))
    data = rows(len(labels), 4)
    first, rest = open_data((data, labels) if labelled else data, PAIR).split(count, seed)
    assert len(first) == count
    assert sorted(first.indices + rest.indices) == list(range(len(labels)))
    if first.labels is not None:
        exact = np.bincount(labels, minlength=5) * count / len(labels)
        assert (np.abs(np.bincount(first.labels, minlength=5) - exact) < 1).all()


def test_a_split_depends_on_its_seed_only() -> None:
    samples = open_data(rows(100, 4), PAIR)
    assert samples.split(50, 1)[0].indices == samples.split(50, 1)[0].indices
    assert samples.split(50, 1)[0].indices != samples.split(50, 2)[0].indices


def test_the_fingerprint_is_that_of_the_content(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=rows(5, 4))
    np.savez_compressed(tmp_path / "b.npz", x=rows(5, 4), other=[1])
    changed = rows(5, 4)
    changed[4, 3] += 1
    prints = [open_data(s, PAIR).fingerprint for s in (rows(5, 4), tmp_path / "a.npz", tmp_path / "b.npz", changed)]
    assert prints[0] == prints[1] == prints[2] != prints[3]


def test_the_fingerprint_covers_the_labels() -> None:
    assert open_data((rows(2, 4), [0, 1]), PAIR).fingerprint != open_data((rows(2, 4), [0, 2]), PAIR).fingerprint


def test_batches_are_joined_and_the_last_is_shorter() -> None:
    found = list(batches(open_data(rows(5, 4), PAIR), 2))
    assert [b["x"].shape for b in found] == [(2, 4), (2, 4), (1, 4)]
    assert np.array_equal(np.concatenate([b["x"] for b in found]), rows(5, 4))


def test_a_batch_ends_where_the_shape_changes() -> None:
    data = open_data([np.zeros((1, n), np.float32) for n in (3, 3, 5, 5, 5)], [spec(None, None)])
    assert [b["x"].shape for b in batches(data, 4)] == [(2, 3), (3, 5)]


def test_a_sample_may_be_changed_without_harm_to_the_data() -> None:
    data = rows(2, 4)
    samples = open_data(data, PAIR)
    samples[0]["x"][:] = 99
    assert samples[0]["x"][0, 1] == 1


def test_raw_pixels_are_suspected() -> None:
    samples = open_data(np.full((2, 28, 28), 200, np.uint8), [DIGIT])
    found = suspicion(samples, [DIGIT])
    assert found is not None and "raw pixels 0..255" in found and "scale" in found


@pytest.mark.parametrize("data", [np.eye(28)[None], np.full((1, 28, 28), 0.5), np.full((1, 28, 28), -3)])
def test_other_values_are_not_suspected(data: Array) -> None:
    assert suspicion(open_data(data, [DIGIT]), [DIGIT]) is None


def test_pixels_for_an_integer_input_are_not_suspected() -> None:
    inputs = [spec(None, 28, 28, 1, dtype="uint8")]
    assert suspicion(open_data(np.full((2, 28, 28), 200, np.uint8), inputs), inputs) is None


def test_a_function_that_returns_a_used_up_iterator_is_found_out(module: str) -> None:
    with pytest.raises(UsageError, match="gave 2 samples the first time and none the second") as e:
        open_data(f"{module}:used_up", PAIR)
    assert e.value.hint == "Return a new iterator at each call."


def test_a_function_that_raises_is_named(module: str) -> None:
    with pytest.raises(UsageError, match=rf"function '{module}:broken' raised KeyError: 'speech'"):
        open_data(f"{module}:broken", PAIR)


def test_a_generator_that_raises_is_named(module: str) -> None:
    with pytest.raises(UsageError, match=rf"function '{module}:broken_later' raised RuntimeError: the disk is gone"):
        open_data(f"{module}:broken_later", PAIR)


def test_an_unknown_function_is_guessed(module: str) -> None:
    with pytest.raises(UsageError, match="has no function 'generater'") as e:
        open_data(f"{module}:generater", PAIR)
    assert e.value.hint == f"Did you mean '{module}:generator'?"


def test_what_is_no_function_is_refused(module: str) -> None:
    with pytest.raises(UsageError, match=f"'{module}:number' is no function but 'int'"):
        open_data(f"{module}:number", PAIR)


def test_an_unknown_module_is_refused() -> None:
    with pytest.raises(UsageError, match=r"there is no module 'no_such_module\.deep'"):
        open_data("no_such_module.deep:load", PAIR)


def test_a_module_that_cannot_be_imported_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mydata_wrong.py").write_text("1 / 0")
    Path("mydata_lacking.py").write_text("import no_such_package")
    with pytest.raises(UsageError, match="module 'mydata_wrong' cannot be imported: ZeroDivisionError"):
        open_data("mydata_wrong:load", PAIR)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError, match="module 'mydata_lacking' needs 'no_such_package'"):
        open_data("mydata_lacking:load", PAIR)
