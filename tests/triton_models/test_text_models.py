"""Models that take texts, for clients that cannot tokenise: the same tokens and vectors, through every swap."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bartizan_connector.base.errors import Stop
from bartizan_connector.encode.onnx import OnnxEncoder
from bartizan_connector.encode.triton.calls import Access, Server, grpc, service_pb2
from bartizan_connector.encode.triton.contract import TOWER_OUTPUT, tower_mark
from bartizan_connector.space.spec import Role, TowerSpec
from bartizan_triton.deploy import deploy
from bartizan_triton.golden import golden_texts
from bartizan_triton.repository.pin import pin
from bartizan_triton.repository.shelf import model_in, models_in
from bartizan_triton.repository.text import TextModel
from bartizan_triton.text_gate import ask_texts, judge_texts
from tests.exports import export_folder
from tests.served import added
from tests.servers.triton import TritonServer

pytestmark = pytest.mark.server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[TritonServer]:
    repository = tmp_path / "models"
    added(repository, export_folder("bert", "fp32"), "model", text=True)
    running = TritonServer(repository)
    running.start()
    yield running
    running.stop()


@pytest.fixture
def calls(server: TritonServer) -> Iterator[Server]:
    connected = Server(Access(url=server.url))
    yield connected
    connected.close()


@pytest.mark.parametrize("role", ["query", "document"])
def test_texts_of_a_role_give_what_the_export_gives(calls: Server, role: Role) -> None:
    exported = OnnxEncoder.open(export_folder("bert", "fp32"))
    texts = golden_texts(32)
    came = ask_texts(calls, TextModel(model="model", role=role), texts)
    expected = exported.encode(texts, role)
    vectors = np.frombuffer(came["vectors"][1], dtype="<f4").reshape(len(texts), -1)
    np.testing.assert_allclose(vectors, expected.values, atol=1e-5)
    assert tuple(np.frombuffer(came["tokens"][1], dtype="<i4")) == expected.tokens
    assert max(expected.tokens) > exported.spec.roles[role].max_tokens  # cut, and counted whole


def test_a_text_that_is_no_utf8_is_refused_alone(calls: Server) -> None:
    request = service_pb2.ModelInferRequest(model_name="model_query_text")
    request.inputs.add(name="text", datatype="BYTES", shape=[1, 1])
    request.raw_input_contents.append((2).to_bytes(4, "little") + b"\xff\xfe")
    with pytest.raises(grpc.RpcError, match="not valid UTF-8") as refused:
        calls.infer(request, 10).do()
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_deployed_version_is_what_texts_reach(server: TritonServer, calls: Server) -> None:
    repository = server.repository
    added(repository, export_folder("bert", "int8"), "model")
    assert [model.name for model in models_in(repository)] == ["model"]
    model = model_in(repository, "model")
    deploy(repository, model, model.versions[2], [Access(url=server.url)], say=print)
    spec = TowerSpec.read(export_folder("bert", "int8"))
    for _ in range(2):  # on the running server, and after its next start
        came = ask_texts(calls, TextModel(model="model", role="query"), ["a", "the tower"])
        assert came[TOWER_OUTPUT][1] == tower_mark(spec.tower_id).tobytes() * 2
        server.kill()
        server.start()


def test_texts_that_would_be_read_otherwise_hold_a_deployment_back(server: TritonServer, calls: Server) -> None:
    repository = server.repository
    added(repository, export_folder("bert", "int8"), "model")
    code = repository / "model_query_text" / "1" / "model.py"
    code.write_text(code.read_text().replace('role["prefix"]', '""'))
    model = model_in(repository, "model")
    with pytest.raises(Stop, match=r"model_query_text' counts .* tokens in golden texts.*was taken back"):
        deploy(repository, model, model.versions[2], [Access(url=server.url)], say=print)
    assert model_in(repository, "model").pinned == 1
    pin(repository, "model", 1)
    judge_texts(calls, TextModel(model="model", role="document"), model.versions[1].folder)
