"""Shapes that a traced graph computes at every call become constants, where `0` (as the input has it) can say them."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from onnx import AttributeProto, ModelProto, NodeProto, numpy_helper

from bartizan_triton.probe import probed
from bartizan_triton.products import constants, replace_nodes

_PROBES = ((2, 5), (3, 7))
"""Batches and lengths, no two numbers alike: what agrees with a dimension in both probes is that dimension."""


def with_constant_shapes(model: ModelProto) -> ModelProto:
    """A copy whose reshapes need no arithmetic on dimensions. The parity gate judges it like the rest of an export.
    A graph with branches is left as it is: what they use of it does not show in the inputs of its nodes."""
    result = ModelProto()
    result.CopyFrom(model)
    if any(option.type == AttributeProto.GRAPH for node in result.graph.node for option in node.attribute):
        return result
    tensors = constants(result)
    reshapes = [node for node in result.graph.node if node.op_type == "Reshape" and node.input[1] not in tensors]
    run = probed(result, sorted({name for node in reshapes for name in node.input}))
    seen = [run(ones, ones) for ones in (np.ones(shape, dtype=np.int64) for shape in _PROBES)]
    for node in reshapes:
        source, target = node.input
        shape = _constant([(values[source].shape, values[target].tolist()) for values in seen])
        if shape is not None:
            name = f"{node.output[0]}/shape"
            tensors[name] = numpy_helper.from_array(shape, name)
            node.input[1] = name
    replace_nodes(result, _needed(result), tensors.values())
    return result


def _constant(probes: Sequence[tuple[tuple[int, ...], list[int]]]) -> npt.NDArray[np.int64] | None:
    """One shape that does for all probes (the input's shape and the wanted one): a number that never changes, 0 for the
    input's own dimension, and at most one -1 for what is left over."""
    places: list[int] = []
    for place, wanted in enumerate(zip(*(target for _, target in probes), strict=True)):
        own = tuple(shape[place] if place < len(shape) else None for shape, _ in probes)
        if len(set(wanted)) == 1:
            places.append(wanted[0])
        else:
            places.append(0 if own == wanted else -1)
    return np.array(places, dtype=np.int64) if places.count(-1) <= 1 else None


def _needed(model: ModelProto) -> list[NodeProto]:
    """The nodes that an output depends on, in their order."""
    wanted = {tensor.name for tensor in model.graph.output}
    kept: list[NodeProto] = []
    for node in reversed(model.graph.node):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            kept.append(node)
    return kept[::-1]
