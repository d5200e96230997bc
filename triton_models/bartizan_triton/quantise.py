"""int8: weights per output channel, activations per token, so that a text's vector never depends on its neighbours.

A matrix product `A @ W` becomes `q(A) @ q(W)` in integers, times the scale of the row (token) and of the column
(channel). ONNX Runtime's own dynamic quantisation takes one activation scale for the whole batch instead: a text's
vector then changes with the texts it is encoded with (docs/decisions/006).
"""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from bartizan_connector.space.tokens import Tokenized
from bartizan_connector.space.vectors import Floats
from bartizan_triton.balance import balanced
from bartizan_triton.products import constants, is_product, options, replace_nodes, with_plain_products

_LEVELS = 127
_SMALLEST = 1e-12
"""Keeps the scale of a row of zeros above zero."""
_LARGEST_HALF = 65_504.0
_CONTRIB = "com.microsoft"


def quantised(model: ModelProto, examples: Sequence[Tokenized]) -> ModelProto:
    """A copy of the graph whose products with constant matrices run in integers; embeddings are kept in fp16.
    The examples show which activations are large."""
    result = balanced(with_plain_products(model), examples)
    rewriting = _Rewriting(constants(result))
    nodes = [new for node in result.graph.node for new in rewriting.rewritten(node)]
    replace_nodes(result, nodes, [*rewriting.constants.values(), *rewriting.added])
    result.opset_import.append(helper.make_opsetid(_CONTRIB, 1))
    return result


@dataclass(slots=True)
class _Rewriting:
    """One pass over a graph; an activation that feeds several products is quantised once."""

    constants: dict[str, TensorProto]
    added: list[TensorProto] = field(default_factory=list)
    _rows: dict[str, tuple[str, str]] = field(default_factory=dict)
    _tables: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        for name, value in (("levels", _LEVELS), ("smallest", _SMALLEST), ("centre", 128.5), ("one", 1.0)):
            self._constant(f"int8/{name}", np.array(value, dtype=np.float32))
        self._constant("int8/zero", np.array(128, dtype=np.uint8))

    def rewritten(self, node: NodeProto) -> Iterator[NodeProto]:
        """The node, or what takes its place."""
        table = (
            self.constants.get(node.input[0]) if node.op_type == "Gather" and not options(node).get("axis") else None
        )
        if is_product(node, self.constants):
            yield from self._product(node, numpy_helper.to_array(self.constants[node.input[1]]))
        elif table is not None and len(table.dims) == 2 and table.data_type == TensorProto.FLOAT:
            yield from self._looked_up(node, table)
        else:
            yield node

    def _product(self, node: NodeProto, weights: Floats) -> Iterator[NodeProto]:
        at = f"int8/{node.output[0]}"
        rows, scale = yield from self._quantised_rows(node.input[0])
        scales = np.maximum(np.abs(weights).max(axis=0) / _LEVELS, _SMALLEST).astype(np.float32)
        levels = np.clip(np.rint(weights / scales), -_LEVELS, _LEVELS).astype(np.int8)
        inputs = [
            rows,
            self._constant(f"{at}/weights", levels),
            "int8/one",
            self._constant(f"{at}/scales", scales),
            "int8/zero",
            self._constant(f"{at}/zeros", np.zeros(len(scales), dtype=np.int8)),
        ]
        yield helper.make_node("MatMulIntegerToFloat", inputs, [f"{at}/product"], domain=_CONTRIB)
        yield helper.make_node("Mul", [f"{at}/product", scale], [node.output[0]])

    def _quantised_rows(self, name: str) -> Generator[NodeProto, None, tuple[str, str]]:
        """uint8 around 128, and the scale of each row. Adding half and cutting off rounds."""
        if name not in self._rows:
            at = f"int8/{name}"
            yield helper.make_node("Abs", [name], [f"{at}/size"])
            yield helper.make_node("ReduceMax", [f"{at}/size"], [f"{at}/most"], axes=[-1], keepdims=1)
            yield helper.make_node("Max", [f"{at}/most", "int8/smallest"], [f"{at}/range"])
            yield helper.make_node("Div", [f"{at}/range", "int8/levels"], [f"{at}/scale"])
            yield helper.make_node("Div", [name, f"{at}/scale"], [f"{at}/levels"])
            yield helper.make_node("Add", [f"{at}/levels", "int8/centre"], [f"{at}/shifted"])
            yield helper.make_node("Cast", [f"{at}/shifted"], [f"{at}/rows"], to=TensorProto.UINT8)
            self._rows[name] = (f"{at}/rows", f"{at}/scale")
        return self._rows[name]

    def _looked_up(self, node: NodeProto, table: TensorProto) -> Iterator[NodeProto]:
        """An embedding, kept in half precision: int8 here would cost short texts more than all products together."""
        values = numpy_helper.to_array(table)
        if np.abs(values).max(initial=0.0) > _LARGEST_HALF:
            yield node
            return
        at = f"int8/{node.output[0]}"
        halves = f"int8/{table.name}/halves"
        if table.name not in self._tables:
            self._tables.add(table.name)
            self._constant(halves, values.astype(np.float16))
        yield helper.make_node("Gather", [halves, node.input[1]], [f"{at}/half"], axis=0)
        yield helper.make_node("Cast", [f"{at}/half"], [node.output[0]], to=TensorProto.FLOAT)

    def _constant(self, name: str, value: npt.NDArray[np.generic]) -> str:
        self.added.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name
