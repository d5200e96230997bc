"""The matrix products of a graph that can run in integers: an activation times a constant matrix."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

_HEAD = "/head/"
"""The head is small and last: rounding it would save nothing and cost most."""


def constants(model: ModelProto) -> dict[str, TensorProto]:
    """The graph's constant tensors by name."""
    return {tensor.name: tensor for tensor in model.graph.initializer}


def is_product(node: NodeProto, constant: dict[str, TensorProto]) -> bool:
    """Whether this is a product with a constant matrix, outside the head."""
    if node.op_type != "MatMul" or node.name.startswith(_HEAD):
        return False
    matrix = constant.get(node.input[1])
    return matrix is not None and len(matrix.dims) == 2


def with_plain_products(model: ModelProto) -> ModelProto:
    """A copy in which each Gemm with a constant matrix is a MatMul and, with a bias, an Add: one form to rewrite."""
    result = ModelProto()
    result.CopyFrom(model)
    constant = constants(result)
    nodes = [plain for node in model.graph.node for plain in _plain(node, constant)]
    replace_nodes(result, nodes, constant.values())
    return result


def replace_nodes(model: ModelProto, nodes: list[NodeProto], tensors: Any) -> None:
    """Give the graph these nodes, and those of the tensors that they use."""
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in list(tensors) if tensor.name in used]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    del model.graph.value_info[:]


def options(node: NodeProto) -> dict[str, Any]:
    """The node's attributes by name."""
    return {option.name: helper.get_attribute_value(option) for option in node.attribute}


def _plain(node: NodeProto, constant: dict[str, TensorProto]) -> Iterator[NodeProto]:
    matrix = constant.get(node.input[1]) if node.op_type == "Gemm" and not node.name.startswith(_HEAD) else None
    how = options(node)
    if matrix is None or how.get("transA") or how.get("alpha", 1.0) != 1.0 or how.get("beta", 1.0) != 1.0:
        yield node
        return
    name = matrix.name
    if how.get("transB"):
        name = f"{matrix.name}/transposed"
        constant[name] = numpy_helper.from_array(np.ascontiguousarray(numpy_helper.to_array(matrix).T), name)
    if len(node.input) == 2:
        yield helper.make_node("MatMul", [node.input[0], name], [node.output[0]], name=node.name)
        return
    yield helper.make_node("MatMul", [node.input[0], name], [f"{node.output[0]}/product"], name=node.name)
    yield helper.make_node("Add", [f"{node.output[0]}/product", node.input[2]], [node.output[0]])
