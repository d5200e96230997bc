"""What the served graph gives besides the export's: whose each row is, and a sparse vector's heaviest terms."""

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, TensorProto, helper, numpy_helper

from bartizan_connector.encode.export import INPUTS, OUTPUT
from bartizan_connector.encode.triton.contract import INDICES_OUTPUT, TOWER_OUTPUT, WEIGHTS_OUTPUT, tower_mark
from bartizan_connector.space.spec import TowerSpec

_AT = "bartizan"


def for_serving(model: ModelProto, spec: TowerSpec, terms: int) -> ModelProto:
    """A copy of the graph with more outputs: the tower's mark for each row, and for a sparse tower its `terms` heaviest
    terms, so that no row as long as a vocabulary ever travels. Nothing else changes."""
    result = ModelProto()
    result.CopyFrom(model)
    _add_mark(result, spec.tower_id)
    if spec.kind == "sparse":
        _add_terms(result, terms)
    return result


def _add_mark(model: ModelProto, tower_id: str) -> None:
    mark = _constant(model, "mark", tower_mark(tower_id).reshape(1, 2))
    zero = _constant(model, "zero", np.array([0], dtype=np.int64))
    one = _constant(model, "one", np.array([1], dtype=np.int64))
    shape, batch, rows = (f"{_AT}/{name}" for name in ("shape", "batch", "rows"))
    model.graph.node.extend(
        [
            helper.make_node("Shape", [INPUTS[0]], [shape]),
            helper.make_node("Slice", [shape, zero, one, zero], [batch]),
            helper.make_node("Concat", [batch, one], [rows], axis=0),
            helper.make_node("Expand", [mark, rows], [TOWER_OUTPUT]),
        ]
    )
    model.graph.output.append(helper.make_tensor_value_info(TOWER_OUTPUT, TensorProto.INT64, ["batch", 2]))


def _add_terms(model: ModelProto, terms: int) -> None:
    most = _constant(model, "terms", np.array([terms], dtype=np.int64))
    node = helper.make_node("TopK", [OUTPUT, most], [WEIGHTS_OUTPUT, INDICES_OUTPUT], axis=-1, largest=1, sorted=1)
    model.graph.node.append(node)
    for name, kind in ((WEIGHTS_OUTPUT, TensorProto.FLOAT), (INDICES_OUTPUT, TensorProto.INT64)):
        model.graph.output.append(helper.make_tensor_value_info(name, kind, ["batch", terms]))


def _constant(model: ModelProto, name: str, value: npt.NDArray[np.int64]) -> str:
    model.graph.initializer.append(numpy_helper.from_array(value, f"{_AT}/{name}"))
    return f"{_AT}/{name}"
