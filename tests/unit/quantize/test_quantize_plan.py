from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

from edgeft.quantize.affine import QuantizationError
from edgeft.quantize.placement import IntegerType, OpRule, OutputRule, Placement, TensorType
from edgeft.quantize.plan import Plan, make_plan
from edgeft_exporters.onnx.placement import PLACEMENT


def planned(model: onnx.ModelProto, placement: Placement = PLACEMENT) -> Plan:
    return make_plan(ir.from_proto(model), placement)


def edit(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.name == name)


def reasons(plan: Plan) -> dict[str, str]:
    return {skip.layer: skip.reason for skip in plan.skips}


def test_every_layer_of_the_net_is_taken(net: onnx.ModelProto) -> None:
    plan = planned(net)
    assert [op.name for op in plan.ops] == ["stem", "dw", "pw", "sum", "max", "pool", "flat", "head"]
    assert [op.name for op in plan.weighted] == ["stem", "dw", "pw", "head"]
    assert plan.observed == ("stem.clip", "dw.relu", "pw", "sum", "pool")
    assert plan.shared == {"max": "sum", "flat": "pool"}
    assert plan.limits == {"stem.clip": (0.0, 6.0), "dw.relu": (0.0, float("inf"))}
    assert set(reasons(plan)) == {"scaled", "scores"}  # absorbed and pixel operators are no findings


def test_pixels_are_integers_already(net: onnx.ModelProto) -> None:
    assert "x" not in planned(net).observed


def test_the_logits_stay_float(net: onnx.ModelProto) -> None:
    head = planned(net).ops[-1]
    assert head.output is None


def test_a_symmetric_target_absorbs_nothing(net: onnx.ModelProto) -> None:
    placement = replace(PLACEMENT, activation=TensorType(IntegerType.S8, symmetric=True))
    plan = planned(net, placement)
    assert "stem" in plan.observed
    assert reasons(plan)["stem.clip"].startswith("it stands alone")


def test_a_clip_with_a_second_reader_is_not_absorbed(net: onnx.ModelProto) -> None:
    net.graph.node.insert(5, helper.make_node("Add", ["stem", "stem"], ["twice"], "twice"))
    plan = planned(net)
    assert "stem" in plan.observed
    assert "stem.clip" in plan.observed  # dw still wants integers: the Clip runs in float between two pairs


@pytest.mark.parametrize(
    ("layer", "change", "reason"),
    [
        ("head", lambda n: n.attribute.append(helper.make_attribute("alpha", 0.5)), "alpha = beta = 1"),
        ("head", lambda n: n.attribute.append(helper.make_attribute("transA", 1)), "transA = 0"),
        ("pw", lambda n: n.attribute.append(helper.make_attribute("auto_pad", "SAME_UPPER")), "automatic"),
        ("pw", lambda n: n.input.__setitem__(1, "scores"), "computed, not constant"),
        ("stem", lambda n: n.input.__setitem__(2, "scores"), "bias is computed"),
    ],
)
def test_a_layer_that_kernels_cannot_take_says_why(
    net: onnx.ModelProto, layer: str, change: object, reason: str
) -> None:
    change(edit(net, layer))  # type: ignore[operator] - a function in the table
    assert reason in reasons(planned(net))[layer]


def test_operators_of_other_domains_stay_float_whatever_they_are_called(net: onnx.ModelProto) -> None:
    net.opset_import.append(helper.make_opsetid("com.microsoft.nchwc", 1))
    for name in ("pw", "dw.relu"):
        edit(net, name).domain = "com.microsoft.nchwc"
    plan = planned(net)
    assert reasons(plan)["pw"] == "com.microsoft.nchwc.Conv is none of ONNX's own operators"
    assert reasons(plan)["dw.relu"] == "com.microsoft.nchwc.Relu is none of ONNX's own operators"
    assert "dw.relu" not in plan.limits  # nor does a Q take the place of such a Relu


def test_weights_that_are_not_finite_stay_float(net: onnx.ModelProto) -> None:
    tensor = next(t for t in net.graph.initializer if t.name == "pw.w")
    array = numpy_helper.to_array(tensor).copy()
    array[0, 0] = np.nan
    tensor.CopyFrom(numpy_helper.from_array(array, "pw.w"))
    plan = planned(net)
    assert reasons(plan)["pw"] == "its weights hold NaN or Inf"
    assert reasons(plan)["sum"] == "its inputs come from float operators"


def test_moving_values_is_not_worth_a_pair_of_its_own(net: onnx.ModelProto) -> None:
    placement = replace(PLACEMENT, rules=tuple(rule for rule in PLACEMENT.rules if rule.op_type != "Gemm"))
    plan = planned(net, placement)
    assert reasons(plan)["flat"] == "no integer operator reads its result"
    assert plan.ops[-1].name == "pool"


def test_a_float_constant_beside_an_activation_keeps_add_in_float(net: onnx.ModelProto) -> None:
    edit(net, "sum").input[1] = "low"
    assert reasons(planned(net))["sum"] == "one of its inputs is a float constant"


def test_an_output_of_the_graph_is_not_quantized(net: onnx.ModelProto) -> None:
    net.graph.output.append(helper.make_tensor_value_info("pw", onnx.TensorProto.FLOAT, None))
    assert "output of the graph" in reasons(planned(net))["pw"]


def test_a_quantized_model_is_refused(net: onnx.ModelProto) -> None:
    edit(net, "sum").op_type = "QLinearAdd"
    with pytest.raises(QuantizationError, match="already quantized: it has QLinearAdd 'sum'"):
        planned(net)


def test_a_target_without_a_matching_rule_is_an_error(net: onnx.ModelProto) -> None:
    placement = replace(PLACEMENT, rules=(OpRule("Sigmoid", (0,), OutputRule.QUANTIZE),))
    with pytest.raises(QuantizationError, match="nothing in this graph"):
        planned(net, placement)
