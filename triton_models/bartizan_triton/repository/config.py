"""`config.pbtxt` through Triton's own protobuf, so that what is written is what Triton reads.

No queue policy is ever set: with priorities, timeouts or a largest queue, Triton's batcher stalls requests for half a
second now and then (docs/triton.md). No response cache either: it outlives a reload.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from bartizan_connector.base.errors import missing_extra
from bartizan_connector.encode.export import INPUTS, MODEL_FILE, OUTPUT
from bartizan_connector.encode.triton.contract import (
    INDICES_OUTPUT,
    SPACE_ID_PARAMETER,
    TOWER_ID_PARAMETER,
    TOWER_OUTPUT,
    VERSION_PARAMETER,
    WEIGHTS_OUTPUT,
    tower_parameter,
)
from bartizan_connector.space.spec import TowerSpec
from bartizan_triton.repository.serving import Serving

try:
    from google.protobuf import json_format, text_format
    from google.protobuf.text_format import ParseError
    from tritonclient.grpc import model_config_pb2 as triton
except ImportError as error:
    raise missing_extra("tritonclient", "triton") from error

__all__ = ["ParseError", "as_json", "as_text", "model_config", "outputs_of", "parsed", "terms_of", "triton"]

CONFIG_FILE = "config.pbtxt"
PLAN_FILE = "model.plan"
CODE_FILE = "model.py"
_FILES = {"python": CODE_FILE, "onnxruntime": MODEL_FILE, "tensorrt": PLAN_FILE}
_WARM_TOKENS = 16
_THREADS = "intra_op_thread_count"


def model_config(
    name: str, serving: Serving, towers: Mapping[int, TowerSpec], *, current: int, serve: Sequence[int] = ()
) -> Any:
    """The configuration under which versions `serve` (the current one alone, if none is said) are served."""
    spec = towers[current]
    config = triton.ModelConfig(
        name=name,
        backend=serving.backend,
        default_model_filename=_FILES[serving.backend],
        max_batch_size=serving.max_batch,
    )
    for tensor in INPUTS:
        # Requests of unlike length are joined where the model pads them itself; elsewhere those of one width are.
        config.input.add(
            name=tensor, data_type=triton.TYPE_INT64, dims=[-1], allow_ragged_batch=serving.backend == "python"
        )
    for tensor, kind, dims in outputs_of(spec, serving):
        config.output.add(name=tensor, data_type=kind, dims=dims)
    config.version_policy.specific.versions.extend(sorted(serve or [current]))
    config.dynamic_batching.max_queue_delay_microseconds = serving.delay_us
    device = triton.ModelInstanceGroup.KIND_GPU if serving.device == "gpu" else triton.ModelInstanceGroup.KIND_CPU
    config.instance_group.add(count=serving.instances, kind=device)
    for batch, tokens in ((1, 1), (serving.max_batch, min(_WARM_TOKENS, longest(spec)))):
        _add_warm_up(config, batch, tokens)
    if serving.backend != "tensorrt":
        config.parameters[_THREADS].string_value = "1"
    if serving.backend == "onnxruntime":
        config.parameters["enable_mem_pattern"].string_value = "0"  # a plan for each shape would be kept for ever
    facts = {
        VERSION_PARAMETER: str(current),
        TOWER_ID_PARAMETER: spec.tower_id,
        SPACE_ID_PARAMETER: spec.space_id,
        **{tower_parameter(version): _compact(towers[version]) for version in sorted({current, *serve})},
    }
    for key, value in facts.items():
        config.parameters[key].string_value = value
    return config


def outputs_of(spec: TowerSpec, serving: Serving) -> list[tuple[str, Any, list[int]]]:
    """Name, type and shape (without the batch) of what a served tower gives."""
    tower = (TOWER_OUTPUT, triton.TYPE_INT64, [2])
    if spec.kind == "dense":
        return [(OUTPUT, triton.TYPE_FP32, [spec.dim]), tower]
    terms = terms_of(spec, serving)
    return [(INDICES_OUTPUT, triton.TYPE_INT64, [terms]), (WEIGHTS_OUTPUT, triton.TYPE_FP32, [terms]), tower]


def terms_of(spec: TowerSpec, serving: Serving) -> int:
    """How many terms of a sparse vector travel."""
    return min(serving.terms, spec.dim)


def longest(spec: TowerSpec) -> int:
    """The most tokens of a text, over the tower's roles."""
    return max(role.max_tokens for role in spec.roles.values())


def as_text(config: Any) -> str:
    """What stands in the file."""
    text: str = text_format.MessageToString(config)
    return text


def as_json(config: Any) -> str:
    """What a server takes with a load."""
    text: str = json_format.MessageToJson(config, preserving_proto_field_name=True)
    return text


def parsed(text: str) -> Any:
    """The file's text as Triton reads it."""
    return text_format.Parse(text, triton.ModelConfig())


def _compact(spec: TowerSpec) -> str:
    return json.dumps(json.loads(spec.to_json()), separators=(",", ":"), ensure_ascii=False)


def _add_warm_up(config: Any, batch: int, tokens: int) -> None:
    """Zeros are padding: every tower knows that id, and an empty mask harms nothing."""
    sample = config.model_warmup.add(name=f"{batch} x {tokens}", batch_size=batch)
    for tensor in INPUTS:
        value = sample.inputs[tensor]
        value.data_type, value.zero_data = triton.TYPE_INT64, True
        value.dims.append(tokens)
