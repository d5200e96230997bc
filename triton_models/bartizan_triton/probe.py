"""What tensors inside a graph hold when it runs on given inputs."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy.typing as npt
import onnxruntime
from onnx import ModelProto, ValueInfoProto

from bartizan_connector.encode.batches import Ids
from bartizan_connector.encode.export import INPUTS
from bartizan_connector.encode.onnx import session_options

Values = dict[str, npt.NDArray[Any]]


def probed(model: ModelProto, names: Sequence[str]) -> Callable[[Ids, Ids], Values]:
    """Takes `input_ids` and `attention_mask`, gives what the named tensors then hold."""
    probe = ModelProto()
    probe.CopyFrom(model)
    probe.graph.output.extend(ValueInfoProto(name=name) for name in names)
    session = onnxruntime.InferenceSession(
        probe.SerializeToString(), session_options(), providers=["CPUExecutionProvider"]
    )

    def run(*inputs: Ids) -> Values:
        return dict(zip(names, session.run(list(names), dict(zip(INPUTS, inputs, strict=True))), strict=True))

    return run
