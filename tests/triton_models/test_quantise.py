"""int8 against numpy: scales by channel and by token, nothing moved but what rounding moves."""

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from bartizan_connector.space.tokens import Tokenized
from bartizan_triton.balance import balanced
from bartizan_triton.products import with_plain_products
from bartizan_triton.quantise import quantised

Matrix = npt.NDArray[np.float32]
EXAMPLES = [Tokenized([row, (row * 7) % 20], 2) for row in range(20)]


def _model(
    weights: Matrix, *products: NodeProto, extra: dict[str, npt.NDArray[np.generic]] | None = None
) -> ModelProto:
    """ids [batch, length] → rows of a table of activations → products → vectors [batch, length, dim]."""
    table = np.random.default_rng(0).standard_normal((20, len(weights))).astype(np.float32)
    table[:, 0] *= 30  # one loud channel, as language models have them
    table[3] = 0.0
    tensors = {"table": table, "weights": weights} | (extra or {})
    inputs = [helper.make_tensor_value_info(n, TensorProto.INT64, ["b", "l"]) for n in ("input_ids", "attention_mask")]
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "input_ids"], ["hidden"]), *products],
        "test",
        inputs,
        [helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["b", "l", "d"])],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def _run(model: ModelProto, ids: list[list[int]]) -> Matrix:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    array = np.array(ids, dtype=np.int64)
    (vectors,) = session.run(["vectors"], {"input_ids": array, "attention_mask": np.ones_like(array)})
    result: Matrix = vectors
    return result


def _matmul(**how: str) -> NodeProto:
    return helper.make_node("MatMul", ["hidden", "weights"], ["vectors"], **how)


def _weights(rows: int = 24, columns: int = 6) -> Matrix:
    weights = np.random.default_rng(1).standard_normal((rows, columns)).astype(np.float32)
    weights[:, 2] *= 100  # one channel that would drown the others under a scale of the whole tensor
    return weights


def test_a_product_is_that_of_rounded_rows_and_rounded_columns() -> None:
    weights = _weights()
    came = _run(quantised(_model(weights, _matmul()), EXAMPLES), [[row] for row in range(20)])[:, 0]
    table = numpy_helper.to_array(_model(weights, _matmul()).graph.initializer[0]).astype(np.float16).astype(np.float64)
    exact = table @ weights
    # The oracle, in float64.
    largest = np.abs(table).max(axis=0)
    factors = np.sqrt(np.maximum(largest, 1e-5) / np.abs(weights).max(axis=1))
    rows, columns = table / factors, weights * factors[:, None]
    row_step, column_step = np.abs(rows).max(axis=1, keepdims=True) / 127, np.abs(columns).max(axis=0) / 127
    oracle = (np.rint(rows / np.maximum(row_step, 1e-12)) * row_step) @ (np.rint(columns / column_step) * column_step)
    one_step = row_step * np.abs(columns).max(axis=0)  # a half may be rounded either way
    assert np.all(np.abs(came - oracle) <= 1.01 * one_step + 1e-4 * np.abs(oracle))
    assert np.mean(np.isclose(came, oracle, rtol=1e-3, atol=1e-3)) > 0.9
    for channel in range(6):
        error = np.linalg.norm(came[:, channel] - exact[:, channel]) / np.linalg.norm(exact[:, channel])
        assert error < 0.02, f"channel {channel}"
    assert np.all(came[3] == 0)


@given(st.lists(st.integers(0, 19), min_size=1, max_size=12), st.integers(0, 19))
@settings(max_examples=20, deadline=None)
def test_a_row_does_not_know_its_neighbours(neighbours: list[int], row: int) -> None:
    model = quantised(_model(_weights(), _matmul()), EXAMPLES)
    alone = _run(model, [[row]])[0, 0]
    for ids in ([[row, *neighbours]], [[each] for each in (row, *neighbours)]):
        np.testing.assert_array_equal(_run(model, ids)[0, 0], alone)


@pytest.mark.parametrize("transposed", [0, 1])
def test_a_gemm_is_read_like_a_product_with_a_bias(transposed: int) -> None:
    weights, bias = _weights(), np.arange(6, dtype=np.float32)
    nodes = [
        helper.make_node("Reshape", ["hidden", "flat"], ["rows"]),
        helper.make_node("Gemm", ["rows", "matrix", "bias"], ["out"], transB=transposed),
        helper.make_node("Reshape", ["out", "deep"], ["vectors"]),
    ]
    extra = {
        "flat": np.array([-1, 24]), "deep": np.array([1, -1, 6]), "bias": bias,
        "matrix": np.ascontiguousarray(weights.T) if transposed else weights,
    }  # fmt: skip
    model = _model(weights, *nodes, extra=extra)
    plain = with_plain_products(model)
    assert [node.op_type for node in plain.graph.node] == ["Gather", "Reshape", "MatMul", "Add", "Reshape"]
    ids = [list(range(20))]
    np.testing.assert_allclose(_run(plain, ids), _run(model, ids), rtol=1e-5, atol=1e-4)
    whole = quantised(model, EXAMPLES)
    assert "MatMulIntegerToFloat" in [node.op_type for node in whole.graph.node]
    np.testing.assert_allclose(_run(whole, ids), _run(model, ids), atol=0.02 * np.abs(_run(model, ids)).max())


def test_balancing_changes_nothing_in_exact_arithmetic_and_helps_in_int8() -> None:
    model = _model(_weights(), _matmul())
    ids = [list(range(20))]
    exact = _run(model, ids)
    np.testing.assert_allclose(_run(balanced(model, EXAMPLES), ids), exact, rtol=1e-4, atol=1e-3)
    blind = [Tokenized([3], 1)]  # shows the row of zeros only: nothing is known of any channel
    errors = [np.abs(_run(quantised(model, examples), ids) - exact)[..., :2].max() for examples in (EXAMPLES, blind)]
    assert errors[0] < errors[1] / 2


def test_the_head_stays_exact() -> None:
    model = _model(_weights(), _matmul(name="/head/MatMul"))
    assert [node.op_type for node in quantised(model, EXAMPLES).graph.node if "Mat" in node.op_type] == ["MatMul"]


def test_every_other_product_has_one_scale_a_channel_and_half_precision_tables() -> None:
    model = quantised(_model(_weights(), _matmul()), EXAMPLES)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    (product,) = (node for node in model.graph.node if node.op_type == "MatMulIntegerToFloat")
    levels, scales = (numpy_helper.to_array(tensors[product.input[place]]) for place in (1, 3))
    assert (levels.dtype, levels.shape, scales.shape) == (np.int8, (24, 6), (6,))
    assert np.abs(levels.astype(int)).max(axis=0).tolist() == [127] * 6
    assert tensors["int8/table/halves"].data_type == TensorProto.FLOAT16
    assert "table" not in tensors
    assert "weights" not in tensors
