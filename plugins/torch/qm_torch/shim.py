"""How a package has oneDNN lay out weights that it unpacks when it is opened.

AOTInductor compiles calls of the operators of PyTorch's core, and of such others as C functions are given for. Those by
which oneDNN lays out weights are none of the core: the functions below call them by way of PyTorch's dispatcher.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Graph

CONVOLUTION = torch.ops.onednn.qconv_prepack
LINEAR = torch.ops.onednn.qlinear_prepack

# AOTInductor puts ``extern`` before each text, a semicolon behind it, and all into ``extern "C"``. What the dispatcher
# takes for lists and optional values is written in torch/csrc/stable/stableivalue_conversions.h, whose templates have
# no place there.
_CONVOLUTION = """\
AOTITorchError aoti_torch_new_tensor_handle(AtenTensorHandle, AtenTensorHandle*);
struct StableListOpaque;
AOTITorchError torch_new_list_reserve_size(size_t, StableListOpaque**);
AOTITorchError torch_list_push_back(StableListOpaque*, StableIValue);

static StableIValue qm_tensor(AtenTensorHandle tensor) {
    AtenTensorHandle owned;
    AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_new_tensor_handle(tensor, &owned));
    return reinterpret_cast<StableIValue>(owned);
}

static StableIValue qm_list(const int64_t* values, int64_t count) {
    StableListOpaque* made;
    AOTI_TORCH_ERROR_CODE_CHECK(torch_new_list_reserve_size(count, &made));
    for (int64_t i = 0; i < count; ++i) {
        AOTI_TORCH_ERROR_CODE_CHECK(torch_list_push_back(made, static_cast<StableIValue>(values[i])));
    }
    return reinterpret_cast<StableIValue>(made);
}

static StableIValue qm_optional(const int64_t** values, int64_t count) {
    return values ? reinterpret_cast<StableIValue>(new StableIValue(qm_list(*values, count))) : 0;
}

static AOTITorchError qm_call(const char* name, StableIValue* values, AtenTensorHandle* made) {
    AOTITorchError failed = aoti_torch_call_dispatcher(name, "", values);
    *made = reinterpret_cast<AtenTensorHandle>(values[0]);
    return failed;
}

AOTITorchError aoti_torch_cpu_qconv_prepack(
    AtenTensorHandle weight, AtenTensorHandle weight_scale, double scale, int64_t zero,
    const int64_t* stride, int64_t strides, const int64_t* padding, int64_t paddings,
    const int64_t* dilation, int64_t dilations, int64_t groups, const int64_t** shape, int64_t axes,
    AtenTensorHandle* made) {
    StableIValue scale_bits;
    static_assert(sizeof(scale_bits) == sizeof(scale), "a double takes one value");
    std::memcpy(&scale_bits, &scale, sizeof(scale));
    StableIValue values[] = {
        qm_tensor(weight), qm_tensor(weight_scale), scale_bits, static_cast<StableIValue>(zero),
        qm_list(stride, strides), qm_list(padding, paddings), qm_list(dilation, dilations),
        static_cast<StableIValue>(groups), qm_optional(shape, axes)};
    return qm_call("onednn::qconv_prepack", values, made);
}
"""
_LINEAR = """\
AOTITorchError aoti_torch_cpu_qlinear_prepack(
    AtenTensorHandle weight, const int64_t** shape, int64_t axes, AtenTensorHandle* made) {
    StableIValue values[] = {qm_tensor(weight), qm_optional(shape, axes)};
    return qm_call("onednn::qlinear_prepack", values, made);
}
"""


def functions() -> dict[Any, list[str]]:
    """The functions, by operator, for AOTInductor's ``custom_ops_to_c_shims``."""
    return {CONVOLUTION.default: [_CONVOLUTION], LINEAR.default: [_LINEAR]}


def register() -> None:
    """Tell PyTorch what shape the operators give; once a process."""
    for operator in (CONVOLUTION, LINEAR):
        torch.library.register_fake(operator.default)(lambda weight, *_: weight.new_empty(weight.shape))


def resolve(graph: Graph) -> None:
    """Name the overloads of the operators, which the passes that write them do not."""
    for node in graph.nodes:
        if node.target in (CONVOLUTION, LINEAR):
            node.target = node.target.default
