from __future__ import annotations

from collections.abc import Callable

from qm_tf.graph import graphs
from qm_tf.model import LiteModel


def test_every_tensor_is_constant_or_made_or_given(small: LiteModel) -> None:
    graph = small.graph
    for op in graph.ops:
        for t in (t for t in op.inputs if t >= 0):
            assert graph.is_constant(t) + (t in graph.producer) + (t in graph.inputs) == 1


def test_who_makes_a_tensor_and_who_reads_it(small: LiteModel) -> None:
    graph = small.graph
    for op in graph.ops:
        assert all(graph.producer[t] == op for t in op.outputs)
        assert all(op in graph.consumers[t] for t in op.inputs)


def test_the_residual_sum_reads_what_two_operations_read(small: LiteModel) -> None:
    graph = small.graph
    total = next(op for op in graph.ops if op.kind == "ADD")
    stem = small.found[0].output
    assert stem in total.inputs and len(graph.consumers[stem]) == 2


def test_the_source_of_a_weight_is_the_weight_and_that_of_data_is_none(small: LiteModel) -> None:
    f = small.found[1]
    assert small.graph.source(f.weights[0]) == (f.weights[0], ())
    assert small.graph.source(f.data) == (-1, ())


def test_nothing_is_prepared_in_a_float_model(loaded: Callable[[str], LiteModel]) -> None:
    assert all(not loaded(name).graph.prepared for name in ("small", "mlp", "words"))


def test_the_main_graph_comes_first(small: LiteModel) -> None:
    assert [g.number for g in graphs(small.native)] == [0]
