"""The trainable network computes what LiteRT computes."""

import importlib.metadata

import numpy as np
import pytest

from qm.numerics import sqnr_db
from qm.plugin import Plan, QuantizeJob, Scheme, Unsupported
from qm_tf import ptq, runtime
from qm_tf.answer import Answer
from qm_tf.model import LiteModel
from qm_tf.option import PtqOptions

if "tensorflow" not in importlib.metadata.packages_distributions():
    pytest.skip("TensorFlow is not installed", allow_module_level=True)

import tensorflow as tf

from qm_tf.network import Network, rounded_twice


def quantized(model, data, scheme):
    plan = Plan({layer.name: Scheme.parse(scheme) for layer in model.layers()})
    return ptq.quantize(QuantizeJob(model=model, plan=plan, data=data, options=PtqOptions()))


def answers(model, data, numbers):
    """The tensors of those numbers as LiteRT computes them, sample by sample."""
    interpreter = model.interpreter(extra_outputs=numbers)
    details = {d["index"]: d for d in interpreter.get_output_details()}
    rows = [runtime.run(interpreter, batch) for batch in data]
    return [np.concatenate([runtime.restored(row[t], details[t]) for row in rows]) for t in numbers]


def batched(data):
    return [tf.constant(np.concatenate([next(iter(batch.values())) for batch in data]))]


@pytest.mark.parametrize("name", ["small", "mlp"])
def test_a_float_graph_answers_as_in_litert(loaded, images, features, name):
    model, data = loaded(name), images if name == "small" else features
    network = Network(model.content, model.content)
    made = network(batched(data), list(model.graph.outputs))
    # The two sum in different orders, in single precision: 2**-24 of the sum a term.
    assert sqnr_db(answers(model, data, model.graph.outputs)[0], made[0].numpy()) > 100


@pytest.mark.parametrize("scheme", ["w8a8", "w4a8"])
def test_an_integer_graph_answers_as_in_litert_after_it_is_written(small, images, scheme):
    network = Network(quantized(small, images, scheme).content, small.content)
    again = LiteModel(network.written())
    convolutions = [f.output for f in again.found if f.kind == "CONV_2D"]
    there = answers(again, images, convolutions[:1])
    made = network(batched(images), convolutions[:1])
    # The first convolution has exact inputs: what differs is rounding, and none does.
    assert np.array_equal(there[0], made[0].numpy())


@pytest.mark.parametrize("scheme", ["w8a8", "w4a8"])
def test_what_is_simulated_is_what_the_file_answers_to_40_db(small, images, scheme):
    network = Network(quantized(small, images, scheme).content, small.content)
    again = LiteModel(network.written())
    logits = [a.number for a in Answer.of(again.graph)]
    assert sqnr_db(answers(again, images, logits)[0], network(batched(images), logits)[0].numpy()) > 40


@pytest.mark.parametrize("scheme", ["w8a8", "w4a8"])
def test_a_graph_that_was_not_trained_is_written_with_the_integers_it_had(mlp, features, scheme):
    before = quantized(mlp, features, scheme)
    after = LiteModel(Network(before.content, mlp.content).written())
    for a, b in zip(before.found, after.found, strict=True):
        assert np.array_equal(before.graph.array(a.weights[0]), after.graph.array(b.weights[0]))


def test_gradients_reach_every_weight_bias_and_free_scale(small, images):
    network = Network(quantized(small, images, "w4a8").content, small.content)
    with tf.GradientTape() as tape:
        made = network(batched(images), [a.number for a in Answer.of(network.graph)])
        loss = tf.reduce_mean(tf.square(made[0]))
    gradients = tape.gradient(loss, network.learnt())
    assert all(g is not None and np.isfinite(g.numpy()).all() for g in gradients)
    assert sum(bool(np.any(g.numpy())) for g in gradients) > 0.9 * len(gradients)


def test_an_operation_that_cannot_be_trained_through_is_named(loaded):
    model = loaded("words")
    with pytest.raises(Unsupported, match="tf.qat cannot train through the operation LESS"):
        Network(model.content, model.content)


def test_layers_that_share_a_weight_still_share_it_after_training(loaded):
    model = loaded("twice")
    rng = np.random.default_rng(0)
    data = [{"features": rng.normal(0, 1, (1, 16)).astype(np.float32)} for _ in range(8)]
    network = Network(quantized(model, data, "w8a8").content, model.content)
    masters = [w.master for w in network.weights.values()]
    assert masters[0] is masters[1] and masters[0] is not masters[2]
    written = LiteModel(network.written())
    first, second, _ = (written.graph.array(f.weights[0]) for f in written.found)
    assert np.array_equal(first, second)


def test_kernels_of_their_own_round_the_fraction_first_and_the_shift_up():
    # 0.3 is 0.6 shifted by one: 1 * 0.6 rounds to 1, and 1 / 2 up to 1; a single rounding would give 0.
    assert float(rounded_twice(tf.constant(1.0), tf.constant(0.3))) == 1.0
    assert float(rounded_twice(tf.constant(-1.0), tf.constant(0.3))) == 0.0
    assert float(rounded_twice(tf.constant(1.0), tf.constant(0.75))) == 1.0
