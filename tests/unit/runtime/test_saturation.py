"""The self-test against an emulated saturating kernel, an exact one, and the runtime of this machine."""

import numpy as np
import onnx
from onnx import TensorProto, helper

from edgeft.core import machine
from edgeft.runtime import saturation


def test_the_model_is_the_one_that_it_says_it_is() -> None:
    info = helper.make_tensor_value_info
    taken = [info("a", TensorProto.UINT8, [1, "K"]), info("b", TensorProto.INT8, ["K", "N"])]
    node = helper.make_node("MatMulInteger", ["a", "b"], ["y"])
    graph = helper.make_graph([node], "pairs", taken, [info("y", TensorProto.INT32, [1, "N"])])
    wanted = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    assert onnx.load_from_string(saturation._MODEL) == wanted


def test_a_saturating_kernel_is_found() -> None:
    def pairs(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        products = a.astype(np.int32)[..., None] * b.astype(np.int32)
        summed = products.reshape(len(a), -1, 2, b.shape[1]).sum(axis=2)
        return np.clip(summed, -32768, 32767).sum(axis=1).astype(np.int32)

    assert saturation.saturates(pairs)


def test_an_exact_kernel_is_exact() -> None:
    assert not saturation.saturates(lambda a, b: a.astype(np.int32) @ b.astype(np.int32))


def test_the_runtime_here_agrees_with_the_instruction_set() -> None:
    """VNNI, or ARM's dot product, sums in 32 bits; x86 without it is what the pair rule is for."""
    isa = machine.facts()["isa"]
    assert isinstance(isa, list)
    if {"avx_vnni", "avx512_vnni", "asimddp"} & set(isa):
        assert not saturation.saturates()
    elif "avx2" in isa:
        assert saturation.saturates()
