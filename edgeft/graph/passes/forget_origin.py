"""Drop everything that says where and how a graph was made: stack traces, module paths, producer, doc strings.

Two exports of one checkpoint then have the same bytes on every machine, and no path of the build machine ships.
"""

import onnx_ir as ir
from onnx.helper import find_min_ir_version_for, make_opsetid
from onnx_ir.passes.common import ClearMetadataAndDocStringPass

from edgeft.graph.passes.report import PassReport

PRODUCER = "edgeft"


def forget_origin_(model: ir.Model) -> PassReport:
    """Clear metadata and doc strings everywhere in `model`; set the producer and the lowest IR version that fits."""
    before = _facts(model)
    cleared = bool(ClearMetadataAndDocStringPass()(model).modified)
    model.producer_name, model.producer_version = PRODUCER, None
    model.doc_string, model.domain, model.model_version = None, None, None
    model.metadata_props.clear()
    model.graph.name = PRODUCER
    model.graph.doc_string = None
    model.graph.metadata_props.clear()
    opsets = [make_opsetid(domain, version) for domain, version in model.opset_imports.items()]
    model.ir_version = find_min_ir_version_for(opsets, ignore_unknown=True)
    for value in _values(model.graph):
        cleared |= bool(value.metadata_props or value.doc_string)
        value.metadata_props.clear()
        value.doc_string = None
    return PassReport("forget_origin", ("model",) if cleared or before != _facts(model) else ())


def _facts(model: ir.Model) -> tuple[object, ...]:
    graph = model.graph
    return (
        *(model.producer_name, model.producer_version, model.doc_string, model.domain, model.model_version),
        *(model.ir_version, tuple(model.metadata_props.items()), graph.name, graph.doc_string),
    )


def _values(graph: ir.Graph) -> list[ir.Value]:
    return [*graph.inputs, *graph.initializers.values(), *(value for node in graph for value in node.outputs)]
