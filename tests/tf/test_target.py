"""What targets that run .tflite files will make of one: a microcontroller, an accelerator for integers only."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

import qm
from qm.errors import RouteError
from qm.plugin import LoadJob
from qm.report import Finding, Level, Report
from qm.suitability import check_operators, check_schemes
from qm.target import find
from qm_tf import flat
from qm_tf.load import load
from qm_tf.model import LiteModel


def with_negation(content: bytes) -> bytes:
    """The model with NEG at its end, for which TensorFlow Lite Micro has a float kernel only."""
    model = flat.parse(content)
    graph = model.subgraphs[0]
    (output,) = graph.outputs
    made = copy.copy(graph.tensors[output])
    made.name, made.buffer = b"negated", 0
    graph.tensors.append(made)
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.NEG
    code.version = 1
    model.operatorCodes.append(code)
    op = schema.OperatorT()
    op.opcodeIndex = len(model.operatorCodes) - 1
    op.inputs, op.outputs = [output], [len(graph.tensors) - 1]
    graph.operators.append(op)
    graph.outputs = [len(graph.tensors) - 1]
    for signature in model.signatureDefs or ():
        for place in signature.outputs:
            place.tensorIndex = len(graph.tensors) - 1
    return flat.serialize(model)


@pytest.fixture(scope="module")
def folder(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("target")
    rng = np.random.default_rng(7)
    np.savez(place / "features.npz", features=rng.normal(0, 1, (24, 40)).astype(np.float32))
    (place / "negated.tflite").write_bytes(with_negation((models / "mlp.tflite").read_bytes()))
    return place


@pytest.fixture(scope="module")
def micro(folder: Path) -> Report:
    return quantized(folder, "cortex-m")


@pytest.fixture(scope="module")
def edge(folder: Path) -> Report:
    return quantized(folder, "edgetpu")


def quantized(folder: Path, target: str) -> Report:
    data, to = folder / "features.npz", folder / f"{target}.tflite"
    return qm.quantize(folder / "negated.tflite", ["tf.ptq"], data=data, target=target, to=to)


def told(report: Report, words: str) -> Finding:
    (found,) = [f for f in report.findings if f.check == "target" and words in f.seen]
    return found


def test_an_operator_that_the_microcontroller_lacks_is_named_with_its_place(micro: Report) -> None:
    found = told(micro, "will not run as integers on cortex-m")
    assert found.level is Level.WARNING
    assert found.seen.endswith("no such operator: NEG")
    assert found.layer == "output_0"  # The name that the model gives what comes out.


def test_operators_that_an_accelerator_lacks_are_named_all_together(edge: Report) -> None:
    found = told(edge, "will not run as integers on edgetpu")
    assert found.seen.startswith("2 of ") and found.seen.endswith("no such operator: DEQUANTIZE, NEG")


def test_targets_that_run_static_integers_only_get_them(micro: Report, edge: Report) -> None:
    assert set(micro.plan.values()) == set(edge.plan.values()) == {"w8a8"}


@pytest.mark.parametrize("target", ["cortex-m", "edgetpu"])
def test_without_samples_such_a_target_is_refused(folder: Path, target: str) -> None:
    with pytest.raises(RouteError, match="tf.ptq needs samples to calibrate w8a8") as caught:
        qm.quantize(folder / "negated.tflite", ["tf.ptq"], target=target)
    assert caught.value.hint == "Give some with --data."


def test_a_hybrid_scheme_is_refused_for_a_microcontroller(folder: Path) -> None:
    with pytest.raises(RouteError, match="scheme 'w8d8' does not run on cortex-m, which runs w8a8, w8a16, w4a8"):
        qm.quantize(folder / "negated.tflite", ["tf.ptq"], scheme="w8d8", target="cortex-m")


def test_every_operation_is_listed_under_a_name_of_its_own(small: LiteModel) -> None:
    listed = small.operators()
    assert [op.kind for op in listed] == [op.kind for op in small.graph.ops]
    assert len({op.name for op in listed}) == len(listed)
    assert [op.layer for op in listed if op.layer] == [layer.name for layer in small.layers()]
    assert {op.integer for op in listed if op.layer} == {False}


def test_layers_of_a_quantized_file_compute_in_integers_and_conversions_do_not_compute(micro: Report) -> None:
    listed = load(LoadJob(path=Path(micro.artifact.path))).operators()
    assert {op.integer for op in listed if op.layer} == {True}
    assert {op.integer for op in listed if op.kind in ("QUANTIZE", "DEQUANTIZE")} == {None}
    assert [op.integer for op in listed if op.kind == "NEG"] == [False]


@pytest.mark.parametrize("name", ["kws_mlperf_int8", "resnet8_mlperf_int8"])
@pytest.mark.parametrize("target", ["cortex-m", "edgetpu"])
def test_reference_models_of_mlperf_tiny_run_as_integers_throughout(shared: Path, name: str, target: str) -> None:
    model, device = load(LoadJob(path=shared / "models" / f"{name}.tflite")), find(target)
    listed = model.operators()
    assert list(check_schemes(device, model.schemes())) == []
    (told,) = check_operators(device, "tflite", listed)
    assert told.seen == f"{target} runs all {len(listed)} operations as integers"
