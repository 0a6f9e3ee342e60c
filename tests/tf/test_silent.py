"""What fails in silence elsewhere is caught: quantizers that promise and do not do, and kernels that give NaN."""

import shutil

import numpy as np
import pytest

import qm
from qm.errors import AuditFailed

PLUGIN = """
from qm.plugin import Quantizer, hookimpl

@hookimpl
def qm_cards():
    yield Quantizer(
        name="{name}", summary="", impl={name}, takes={{"tflite"}}, gives="tflite", schemes={{"w8a8", "w8d8", "w2d8"}},
        default="{scheme}", layer_kinds={kinds},
    )
"""

LAZY = "def lazy(job):\n    return job.model.with_content(job.model.content)\n"

PARTIAL = """
from dataclasses import replace
from qm.plugin import Plan
from qm_tf import ptq
from qm_tf.option import PtqOptions

def partial(job):
    names = list(job.plan.layers)
    some = Plan({names[0]: job.plan[names[0]]})
    return ptq.quantize(replace(job, plan=some, options=PtqOptions()))
"""

TWO_BITS = """
from ai_edge_quantizer import quantizer, qtyping
from qm_tf import runtime

def two_bits(job):
    maker = quantizer.Quantizer(job.model.content)
    maker.add_dynamic_config(".*", qtyping.TFLOperationName.CONV_2D, 2)
    with runtime.quiet():
        made = maker.quantize(enable_progress_report=False)
    return job.model.with_content(bytes(made.quantized_model))
"""


@pytest.fixture
def run(publish, models, tmp_path):
    """Quantize a model by a published method: the audit's error."""

    def audited(name, code, model, data, scheme="w8d8", kinds="set()"):
        publish("acme", code + PLUGIN.format(name=name, scheme=scheme, kinds=kinds))
        path = tmp_path / f"{model}.tflite"
        shutil.copyfile(models / f"{model}.tflite", path)
        with pytest.raises(AuditFailed) as caught:
            qm.quantize(path, [f"acme.{name}"], data=data, to=tmp_path / "made.tflite")
        assert (tmp_path / "made.tflite.rejected").exists()
        return caught.value

    return audited


def rows(shape, name):
    return {name: np.random.default_rng(0).normal(0, 1, (40, *shape)).astype(np.float32)}


def test_a_quantizer_that_returns_the_float_model_is_caught(run):
    error = run("lazy", LAZY, "mlp", rows((40,), "features"))
    assert "3 of 3 layers: asked for w8d8, is in float" in error.message


def test_a_quantizer_that_leaves_most_layers_in_float_is_caught(run):
    error = run("partial", PARTIAL, "mlp", rows((40,), "features"))
    assert "2 of 3 layers: asked for w8d8, is in float" in error.message
    assert "second_1, last_1" in error.message


def test_convolutions_of_two_bits_that_give_nan_are_caught(run):
    error = run("two_bits", TWO_BITS, "small", rows((16, 16, 3), "image"), scheme="w2d8", kinds="{'CONV_2D'}")
    assert "an output has NaN or infinity where the float model's is finite" in error.message
