"""The .toy file."""

import json
from dataclasses import replace

import numpy as np
import pytest

import qm_toy
from qm.errors import UsageError
from qm.plugin import ExportJob, LoadJob
from qm_toy.model import ToyModel
from qm_toy.sample import model
from qm_toy.store import load, save
from qm_toy.weight import Float


@pytest.fixture
def change(tmp_path):
    """Write a model with its header or arrays changed, and return what loading it says."""

    def changed(edit):
        with np.load(qm_toy.make(tmp_path / "whole.toy")) as file:
            arrays = dict(file)
        header = json.loads(arrays.pop("header").tobytes())
        edit(header, arrays)
        path = tmp_path / "changed.toy"
        with path.open("wb") as file:
            np.savez(file, header=np.frombuffer(json.dumps(header).encode(), np.uint8), **arrays)
        with pytest.raises(UsageError) as caught:
            load(LoadJob(path=path))
        return caught.value.message

    return changed


def test_one_seed_makes_the_same_file(tmp_path):
    assert qm_toy.make(tmp_path / "a.toy", 3).read_bytes() == qm_toy.make(tmp_path / "b.toy", 3).read_bytes()


def test_another_seed_makes_another_file(tmp_path):
    assert qm_toy.make(tmp_path / "a.toy", 3).read_bytes() != qm_toy.make(tmp_path / "b.toy", 4).read_bytes()


def test_labels_are_what_the_model_answers(tmp_path):
    with np.load(qm_toy.make_data(tmp_path / "data.npz", 3, samples=20)) as data:
        assert data["y"].tolist() == model(3).run({"x": data["x"]})["y"].argmax(axis=1).tolist()
        assert len(set(data["y"])) > 1


def test_a_shared_weight_is_stored_once_and_stays_shared(tmp_path):
    path = qm_toy.make(tmp_path / "tied.toy", tied=True)
    with np.load(path) as file:
        assert [name for name in file.files if name.endswith("/values")] == [
            "first/values",
            "second/values",
            "head/values",
        ]
    assert {layer.name: layer.tied for layer in load(LoadJob(path=path)).layers() if layer.tied} == {
        "second": "second",
        "third": "second",
    }


def test_half_precision_weights_survive_the_file(tmp_path):
    layers = [replace(n, weight=Float(array=n.weight.array.astype(np.float16))) for n in model().native]
    path = tmp_path / "half.toy"
    save(ExportJob(model=ToyModel(layers), path=path))
    again = load(LoadJob(path=path))
    assert {str(scheme) for scheme in again.schemes().values()} == {"f16"}


def test_a_pickled_object_is_refused(tmp_path):
    path = tmp_path / "pickled.toy"
    with path.open("wb") as file:
        np.savez(file, header=np.array([{"version": 1}], dtype=object))
    with pytest.raises(UsageError, match="damaged, or are pickled objects"):
        load(LoadJob(path=path))


def test_a_single_array_is_refused(tmp_path):
    path = tmp_path / "array.toy"
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(UsageError, match=r"it is no \.npz file"):
        load(LoadJob(path=path))


def test_a_missing_array_is_named(change):
    assert change(lambda header, arrays: arrays.pop("second/values")).endswith("the array 'second/values' is missing")


def test_a_model_of_no_layers_is_refused(change):
    assert "its header is wrong at 'layers'" in change(lambda header, arrays: header["layers"].clear())


def test_layers_that_do_not_fit_together_are_named(change):
    def narrow(header, arrays):
        arrays["second/values"] = np.zeros((64, 48), np.float32)

    assert change(narrow).endswith("layer 'second' takes 48 inputs and gets 64")


def test_a_bias_of_a_wrong_length_is_named(change):
    def shorten(header, arrays):
        arrays["head/bias"] = np.zeros(3, np.float32)

    assert change(shorten).endswith("layer 'head' has 10 outputs and a bias of shape [3]")


def test_two_layers_of_one_name_are_refused(change):
    def repeat(header, arrays):
        header["layers"].insert(1, header["layers"][1])

    assert change(repeat).endswith("two layers are named 'second'")


def test_a_width_that_does_not_fill_a_byte_is_refused(change):
    def pack(header, arrays):
        header["weights"]["head"] = {"codec": "packed", "bits": 3, "shape": [10, 64]}

    assert change(pack).endswith("weight 'head' is packed in 3 bits with shape (10, 64)")


def test_codes_that_are_too_few_are_refused(change):
    def pack(header, arrays):
        header["weights"]["head"] = {"codec": "packed", "bits": 4, "shape": [10, 64]}
        arrays |= {"head/codes": np.zeros(100, np.uint8), "head/scale": np.ones((10, 1), np.float32)}

    assert change(pack).endswith("weight 'head' has 100 bytes of codes for shape [10, 64]")


def test_a_key_of_the_header_that_is_not_known_is_named(change):
    assert "wrong at 'colour'" in change(lambda header, arrays: header.update(colour="blue"))


def test_damaged_bytes_never_end_in_a_traceback(tmp_path):
    whole = qm_toy.make(tmp_path / "whole.toy").read_bytes()
    rng = np.random.default_rng(0)
    path = tmp_path / "damaged.toy"
    refused = 0
    for _ in range(500):
        damaged = bytearray(whole)
        # The archive's and the arrays' own headers are where damage tells.
        for place in rng.choice([*range(1000), *range(len(whole) - 1000, len(whole))], size=3):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            load(LoadJob(path=path))
        except UsageError:
            refused += 1
    assert refused > 400
