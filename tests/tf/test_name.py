import pytest

from qm.plugin import unique
from qm_tf import name


@pytest.mark.parametrize(
    ("kind", "weight", "output", "expected"),
    [
        (
            "CONV_2D",
            "model/conv2d/Conv2D",
            "model/act/Relu;model/bn/FusedBatchNormV3;model/conv2d/Conv2D",
            "model/conv2d",
        ),
        ("CONV_2D", "arith.constant3", "StatefulPartitionedCall/net_1/stem_1/convolution", "net_1/stem_1"),
        ("DEPTHWISE_CONV_2D", "", "model/norm/FusedBatchNormV3;model/dw/depthwise;model/pw/Conv2D", "model/dw"),
        ("FULLY_CONNECTED", "model/dense/dense/MatMul", "", "model/dense"),
        ("FULLY_CONNECTED", "net/up/Tensordot/MatMul", "net/up/Tensordot", "net/up"),
        ("FULLY_CONNECTED", "hidden/kernel", "whatever", "hidden"),
        ("FULLY_CONNECTED", "arith.constant", "StatefulPartitionedCall:0", ""),
    ],
)
def test_a_layer_is_named_after_its_own_operation(kind: str, weight: str, output: str, expected: str) -> None:
    assert name.layer_name(kind, weight, output) == expected


def test_what_all_names_begin_with_goes() -> None:
    assert name.without_model(["net/a", "net/b/c"]) == ["a", "b/c"]
    assert name.without_model(["net/a"]) == ["a"]
    assert name.without_model(["a", "net/b"]) == ["a", "net/b"]


def test_names_that_came_before_get_a_number() -> None:
    assert unique(["a", "b", "a", "a.2", "a"]) == ["a", "b", "a.2", "a.2.2", "a.3"]


def test_a_second_traces_numbers_go_where_keras_knows_the_layers() -> None:
    assert name.original(["conv_1", "dense_1"], {"conv", "dense"}) == ["conv", "dense"]
    assert name.original(["conv_1", "dense"], {"conv", "dense"}) == ["conv_1", "dense"]
