"""A graph cut into a chain: residual blocks stay whole, every operator is in one segment, in order."""

import onnx_ir as ir
from onnx import TensorProto, helper

from edgeft.graph.segments import Segment, segments


def chain(nodes: list[tuple[str, list[str], str]], outputs: tuple[str, ...] = ("y",)) -> tuple[Segment, ...]:
    """Cut a graph of (operator, inputs, output); Conv starts a segment, every tensor is [N, 4, 2]."""
    made = [helper.make_node(op_type, inputs, [output], f"n_{output}") for op_type, inputs, output in nodes]
    shape = ["N", 4, 2]
    values = [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape) for _, _, output in nodes]
    graph = helper.make_graph(
        made,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [value for value in values if value.name in outputs],
        [helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0])],
        value_info=[value for value in values if value.name not in outputs],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    return segments(ir.from_proto(model), lambda node: node.op_type == "Conv")


def test_a_chain_is_cut_behind_what_follows_each_convolution() -> None:
    found = chain(
        [
            ("Neg", ["x"], "p"),
            ("Conv", ["p", "w"], "a"),
            ("Relu", ["a"], "b"),
            ("Conv", ["b", "w"], "c"),
            ("Neg", ["c"], "y"),
        ]
    )
    assert [segment.nodes for segment in found] == [("n_p", "n_a", "n_b"), ("n_c", "n_y")]
    assert [segment.tensors for segment in found] == [("p", "a", "b"), ("c", "y")]
    assert [segment.size for segment in found] == [8, 8]
    assert found[0].name == "n_p .. n_b"


def test_a_residual_block_stays_whole() -> None:
    found = chain(
        [
            ("Conv", ["x", "w"], "a"),
            ("Conv", ["a", "w"], "b"),
            ("Conv", ["b", "w"], "c"),
            ("Add", ["c", "a"], "d"),
            ("Conv", ["d", "w"], "y"),
        ]
    )
    assert [segment.nodes for segment in found] == [("n_a",), ("n_b", "n_c", "n_d"), ("n_y",)]


def test_a_gate_stays_with_what_it_gates() -> None:
    found = chain(
        [
            ("Conv", ["x", "w"], "a"),
            ("ReduceMean", ["a"], "pool"),
            ("Conv", ["pool", "w"], "gate"),
            ("Mul", ["a", "gate"], "b"),
            ("Conv", ["b", "w"], "y"),
        ]
    )
    assert [segment.nodes for segment in found] == [("n_a",), ("n_pool", "n_gate", "n_b"), ("n_y",)]


def test_an_inner_output_of_the_graph_ends_nothing() -> None:
    """It is alive to the end, so nothing behind it stands alone."""
    found = chain([("Conv", ["x", "w"], "a"), ("Conv", ["a", "w"], "b"), ("Conv", ["b", "w"], "y")], outputs=("a", "y"))
    assert [segment.nodes for segment in found] == [("n_a",), ("n_b", "n_y")]


def test_what_a_branch_reads_inside_is_alive_until_there() -> None:
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, None)
    then, other = (
        helper.make_graph([helper.make_node(kind, ["a"], ["out"])], kind, [], [out]) for kind in ("Abs", "Neg")
    )
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], "n_a"),
        helper.make_node("Conv", ["a", "w"], ["b"], "n_b"),
        helper.make_node("ReduceMax", ["b"], ["c"], "n_c"),
        helper.make_node("If", ["c"], ["y"], "n_y", then_branch=then, else_branch=other),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4, 2]) for name in "xy")
    graph = helper.make_graph(nodes, "g", [x], [y], [helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    found = segments(ir.from_proto(model), lambda node: node.op_type == "Conv")
    assert [segment.nodes for segment in found] == [("n_a",), ("n_b", "n_c", "n_y")]


def test_nothing_is_cut_where_another_output_than_the_last_is_alive() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], "n_a"),
        helper.make_node("Split", ["a"], ["b", "unused"], "n_b", num_outputs=2, axis=1),
        helper.make_node("Conv", ["b", "w"], ["y"], "n_y"),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4, 2]) for name in "xy")
    graph = helper.make_graph(nodes, "g", [x], [y], [helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    found = segments(ir.from_proto(model), lambda node: node.op_type == "Conv")
    assert [segment.nodes for segment in found] == [("n_a",), ("n_b", "n_y")]
