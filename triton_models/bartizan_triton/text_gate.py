"""The gate for models that take texts: token by token what the client's own tokenizer gives, and the same vectors."""

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from bartizan_connector.base.errors import Stop
from bartizan_connector.encode.onnx import OnnxEncoder
from bartizan_connector.encode.triton.calls import Server, drive, grpc, service_pb2, translated
from bartizan_connector.encode.triton.contract import TOWER_OUTPUT, tower_mark
from bartizan_connector.encode.triton.engine import values_of
from bartizan_triton.closeness import measured
from bartizan_triton.gate import LIMITS
from bartizan_triton.golden import golden_texts
from bartizan_triton.repository.text import TEXT_INPUT, TOKENS_OUTPUT, TextModel

_SECONDS = 60.0
_LONGEST_COMPARED = 512
_AT_ONCE = 8


def ask_texts(server: Server, found: TextModel, texts: list[str]) -> dict[str, Any]:
    """Every output of one request, by name: its tensor and its bytes."""
    request = service_pb2.ModelInferRequest(model_name=found.text)
    request.inputs.add(name=TEXT_INPUT, datatype="BYTES", shape=[len(texts), 1])
    raw = [text.encode("utf-8") for text in texts]
    request.raw_input_contents.append(b"".join(len(each).to_bytes(4, "little") + each for each in raw))
    answer = drive(_one(server.infer(request, _SECONDS)))
    return {tensor.name: (tensor, answer.raw_output_contents[at]) for at, tensor in enumerate(answer.outputs)}


def judge_texts(server: Server, found: TextModel, version: Path) -> None:
    """Refuse a text model that reads other tokens, or answers for another tower, than the version in that folder."""
    with closing(OnnxEncoder.open(version)) as reference:
        spec = reference.spec
        texts = golden_texts(min(spec.roles[found.role].max_tokens, _LONGEST_COMPARED))
        limit = LIMITS[spec.precision].cosine
        for start in range(0, len(texts), _AT_ONCE):
            batch = texts[start : start + _AT_ONCE]
            expected = reference.encode(batch, found.role)
            try:
                came = ask_texts(server, found, batch)
            except grpc.RpcError as error:
                raise translated(error, server.url, f"texts for model '{found.text}'") from error
            counted = tuple(np.frombuffer(came[TOKENS_OUTPUT][1], dtype="<i4").tolist())
            if counted != expected.tokens:
                raise Stop(f"model '{found.text}' counts {counted} tokens in golden texts, expected {expected.tokens}")
            if came[TOWER_OUTPUT][1] != tower_mark(spec.tower_id).tobytes() * len(batch):
                raise Stop(f"model '{found.text}' answers for another tower than {spec.tower_id}")
            for one, other in zip(expected.values, values_of(came, spec), strict=True):
                cosine = measured(one, other, other).cosine
                if not cosine >= limit:
                    raise Stop(f"model '{found.text}' gives a vector of cosine {cosine:.5f} to the export's")


def _one(call: Any) -> Any:
    return (yield call)
