"""Each layer of a graph alone: fed with what the other graph feeds it, so that no error of an earlier layer is in it.

Every reader of an aligned tensor reads an input of the graph instead; the tensor itself becomes an output. One run of
such a graph computes every layer once, each on exact inputs.
"""

from collections.abc import Iterable

import onnx
from onnx.utils import Extractor

from edgeft.parity.align import Pair

GIVEN = "::given"


def forced(new: onnx.ModelProto, pairs: Iterable[Pair]) -> onnx.ModelProto:
    """Return `new` with the readers of each `Pair.seen` reading the graph input `Pair.name + GIVEN`."""
    listed = tuple(pairs)
    given = {pair.seen: pair.name + GIVEN for pair in listed}
    model = onnx.ModelProto()
    model.CopyFrom(new)
    graph = model.graph
    read = set()
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name in given:
                node.input[index] = given[name]
                read.add(name)
    del graph.output[:]
    for pair in listed:
        graph.output.append(onnx.helper.make_tensor_value_info(pair.seen, onnx.TensorProto.FLOAT, None))
        if pair.seen in read:
            graph.input.append(onnx.helper.make_tensor_value_info(given[pair.seen], onnx.TensorProto.FLOAT, None))
    return model


def reproducer(new: onnx.ModelProto, pairs: Iterable[Pair], worst: Pair) -> onnx.ModelProto:
    """Return the part of `new` that computes `worst` from the aligned tensors before it: the smallest such graph."""
    whole = forced(new, pairs)
    inputs = {value.name for value in whole.graph.input}
    needed = {source if source in inputs else f"{source}{GIVEN}" for source in worst.sources}
    part: onnx.ModelProto = Extractor(whole).extract_model(sorted(needed), [worst.seen])
    return part
