"""The tower's identity inside the served graph: one more output that says, row by row, whose vectors these are."""

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from bartizan_connector.encode.export import INPUTS
from bartizan_connector.encode.triton.contract import TOWER_OUTPUT, tower_mark

_AT = "bartizan/tower"


def with_tower_mark(model: ModelProto, tower_id: str) -> ModelProto:
    """A copy of the graph that gives the tower's mark too, one row a text; nothing else changes."""
    result = ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    constants = {
        "mark": tower_mark(tower_id).reshape(1, 2),
        "first": np.array([0], dtype=np.int64),
        "second": np.array([1], dtype=np.int64),
        "one": np.array([1], dtype=np.int64),
    }
    graph.initializer.extend(numpy_helper.from_array(value, f"{_AT}/{name}") for name, value in constants.items())
    graph.node.extend(
        [
            helper.make_node("Shape", [INPUTS[0]], [f"{_AT}/shape"]),
            helper.make_node(
                "Slice", [f"{_AT}/shape", f"{_AT}/first", f"{_AT}/second", f"{_AT}/first"], [f"{_AT}/batch"]
            ),
            helper.make_node("Concat", [f"{_AT}/batch", f"{_AT}/one"], [f"{_AT}/rows"], axis=0),
            helper.make_node("Expand", [f"{_AT}/mark", f"{_AT}/rows"], [TOWER_OUTPUT]),
        ]
    )
    graph.output.append(helper.make_tensor_value_info(TOWER_OUTPUT, TensorProto.INT64, ["batch", 2]))
    return result
