"""Quantization-aware training."""

import importlib.metadata
from collections.abc import Iterable

import numpy as np
import pytest

from qm.numerics import sqnr_db
from qm.plugin import Notes, Plan, PluginError, QuantizeJob, Scheme, UsageError

if "tensorflow" not in importlib.metadata.packages_distributions():
    pytest.skip("TensorFlow is not installed", allow_module_level=True)

from qm_tf import cache, ptq, qat
from qm_tf.option import PtqOptions, QatOptions


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("QM_CACHE", str(tmp_path / "cache"))


class Labelled(list):
    labels = None


PLAIN = {"rounding": "nearest", "weights": "minmax", "bias_correction": False}


def features(count, seed=1):
    rng = np.random.default_rng(seed)
    return Labelled({"features": rng.normal(0, 1, (1, 40)).astype(np.float32)} for _ in range(count))


def job(model, scheme="w4a8", data=None, progress=None, **options):
    plan = Plan({layer.name: Scheme.parse(scheme) for layer in model.layers()})
    more = {} if progress is None else {"progress": progress}
    data = features(300) if data is None else data
    return QuantizeJob(model=model, plan=plan, data=data, options=QatOptions(**options), notes=Notes(), **more)


def error_db(model, made):
    pairs = [(model.run(batch)["output_0"], made.run(batch)["output_0"]) for batch in features(64, seed=2)]
    return sqnr_db(np.concatenate([a for a, _ in pairs]), np.concatenate([b for _, b in pairs]))


def test_training_brings_four_bits_closer_to_the_float_model_than_rounding(mlp):
    asked = job(mlp, data=features(2000), epochs=4, learning_rate=1e-3)

    def rounded(**options):
        told = PtqOptions(**options)
        return ptq.quantize(QuantizeJob(model=mlp, plan=asked.plan, data=features(300), options=told))

    trained = qat.quantize(asked)
    assert trained.schemes() == asked.plan.layers
    assert error_db(mlp, trained) > error_db(mlp, rounded(**PLAIN)) + 2.0
    # GPTQ leaves little to learn where weights and inputs are noise.
    assert error_db(mlp, trained) > error_db(mlp, rounded())
    assert any("the file answers in LiteRT" in note for note in asked.notes)


class Interrupted:
    """Progress that stops the training in its second epoch."""

    def __init__(self, after):
        self.after = after

    def track(self, items: Iterable, label: str, total: int | None = None):
        for count, item in enumerate(items):
            if label == "training" and count == self.after:
                raise KeyboardInterrupt
            yield item


def test_an_interrupted_training_goes_on_to_the_same_file(mlp, tmp_path, monkeypatch):
    whole = qat.quantize(job(mlp, epochs=3))
    steps = (300 - 30) // 64
    with pytest.raises(KeyboardInterrupt) as caught:
        qat.quantize(job(mlp, epochs=3, progress=Interrupted(after=steps + 2)))
    assert caught.value.__notes__ == ["Finished epochs are kept: the same command goes on from the last one."]
    again = job(mlp, epochs=3)
    resumed = qat.quantize(again)
    assert any(note.startswith("training goes on after epoch ") for note in again.notes)
    assert resumed.content == whole.content
    assert not list((cache.folder() / "training").iterdir())


def test_labels_alone_can_be_learnt(mlp):
    data = features(300)
    data.labels = np.arange(300) % 40
    asked = job(mlp, data=data, epochs=1, loss="labels")
    qat.quantize(asked)
    assert any("from the labels" in note for note in asked.notes)


def test_where_training_only_harms_the_start_is_kept(mlp):
    asked = job(mlp, epochs=1, learning_rate=1.0, schedule="constant", batch=1)
    made = qat.quantize(asked)
    assert any("epoch 0 is kept" in note for note in asked.notes)
    rounded = ptq.quantize(QuantizeJob(model=mlp, plan=asked.plan, data=asked.data, options=PtqOptions()))
    assert error_db(mlp, made) == pytest.approx(error_db(mlp, rounded), abs=1.0)


def test_training_needs_samples(mlp):
    with pytest.raises(UsageError, match=r"tf\.qat needs samples to learn from"):
        qat.quantize(QuantizeJob(model=mlp, plan=Plan({"first_1": Scheme.parse("w8a8")}), options=QatOptions()))


def test_a_loss_of_labels_needs_labels(mlp):
    with pytest.raises(UsageError, match="loss=labels needs labels, and the data have none"):
        qat.quantize(job(mlp, loss="labels"))


def test_labels_beyond_the_models_classes_are_refused(mlp):
    data = features(20)
    data.labels = np.full(20, 40)
    with pytest.raises(UsageError, match="gives 40 values a sample, which do not fit labels up to 40"):
        qat.quantize(job(mlp, data=data, loss="both"))


def test_nan_in_a_sample_is_named(mlp):
    data = features(20)
    data[3]["features"][0, 5] = np.nan
    with pytest.raises(UsageError, match="holds NaN or infinity for calibration sample 3"):
        qat.quantize(job(mlp, data=data))


def test_a_child_that_dies_is_a_failure_of_the_plugin(mlp, monkeypatch):
    monkeypatch.setenv("LD_PRELOAD", "")
    monkeypatch.setenv("PYTHONPATH", "")
    asked = job(mlp, epochs=1)
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(PluginError, match="quantization-aware training failed"):
        qat.quantize(asked)
