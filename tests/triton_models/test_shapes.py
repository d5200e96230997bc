"""Shapes become constants where that is right for every batch and length, and stay computed where it is not."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from bartizan_triton.graph import graph_of
from bartizan_triton.shapes import with_constant_shapes
from tests.encoders import tiny

Ids = npt.NDArray[np.int64]

NODES = [
    helper.make_node("Shape", ["input_ids"], ["shape"]),
    *(helper.make_node("Gather", ["shape", f"at_{i}"], [f"dim_{i}"]) for i in range(2)),
    *(helper.make_node("Unsqueeze", [f"dim_{i}", "axis"], [f"part_{i}"]) for i in range(2)),
    helper.make_node("Mul", ["part_0", "part_1"], ["part_01"]),
    helper.make_node("Gather", ["table", "input_ids"], ["hidden"]),
]
TENSORS = {
    "at_0": np.array(0),
    "at_1": np.array(1),
    "axis": np.array([0]),
    "two": np.array([2]),
    "four": np.array([4]),
    "table": np.arange(20 * 8, dtype=np.float32).reshape(20, 8),
}


def _model(parts: Sequence[str]) -> ModelProto:
    """hidden [batch, length, 8], reshaped to the parts."""
    nodes = [
        *(NodeProto.FromString(node.SerializeToString()) for node in NODES),
        helper.make_node("Concat", list(parts), ["target"], axis=0),
        helper.make_node("Reshape", ["hidden", "target"], ["vectors"]),
    ]
    inputs = [helper.make_tensor_value_info(n, TensorProto.INT64, ["b", "l"]) for n in ("input_ids", "attention_mask")]
    output = helper.make_tensor_value_info("vectors", TensorProto.FLOAT, None)
    tensors = [numpy_helper.from_array(value, name) for name, value in TENSORS.items()]
    graph = helper.make_graph(nodes, "test", inputs, [output], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def _run(model: ModelProto, ids: Ids) -> npt.NDArray[np.float32]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (value,) = session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})
    result: npt.NDArray[np.float32] = value
    return result


@pytest.mark.parametrize(
    ("parts", "constant"),
    [
        (("part_0", "part_1", "two", "four"), [0, 0, 2, 4]),
        (("part_0", "two", "part_1", "four"), [0, 2, -1, 4]),
        (("part_01", "two", "four"), [-1, 2, 4]),
        (("part_1", "part_0", "two", "four"), None),
        (("part_1", "two", "four", "part_0"), None),
    ],
)
@given(batch=st.integers(1, 6), length=st.integers(1, 9))
@settings(max_examples=5, deadline=None)
def test_it_reshapes_as_before_whatever_comes(
    parts: tuple[str, ...], constant: list[int] | None, batch: int, length: int
) -> None:
    before = _model(parts)
    after = with_constant_shapes(before)
    known = {tensor.name: numpy_helper.to_array(tensor).tolist() for tensor in after.graph.initializer}
    (reshape,) = (node for node in after.graph.node if node.op_type == "Reshape")
    assert known.get(reshape.input[1]) == constant
    ids = np.arange(batch * length).reshape(batch, length) % 20
    np.testing.assert_array_equal(_run(after, ids), _run(before, ids))


def test_what_only_served_a_shape_is_gone() -> None:
    after = with_constant_shapes(_model(("part_0", "part_1", "two", "four")))
    assert [node.op_type for node in after.graph.node] == ["Gather", "Reshape"]
    assert {tensor.name for tensor in after.graph.initializer} == {"table", "vectors/shape"}


def test_a_graph_with_branches_is_left_as_it_is() -> None:
    model = _model(("part_0", "part_1", "two", "four"))
    output = helper.make_tensor_value_info("chosen", TensorProto.FLOAT, None)
    branch = helper.make_graph([helper.make_node("Identity", ["hidden"], ["chosen"])], "branch", [], [output])
    condition = numpy_helper.from_array(np.array(True), "yes")
    model.graph.initializer.append(condition)
    model.graph.node.append(helper.make_node("If", ["yes"], ["unused"], then_branch=branch, else_branch=branch))
    assert with_constant_shapes(model) == model


@pytest.mark.parametrize("kind", ["bert", "distilbert", "t5"])
def test_no_reshape_of_a_tower_computes_its_shape(kind: str) -> None:
    model: onnx.ModelProto = graph_of(tiny.tower(kind))
    known = {tensor.name for tensor in model.graph.initializer}
    assert [node.name for node in model.graph.node if node.op_type == "Reshape" and node.input[1] not in known] == []
