"""What a server says to a request that is at fault, and that its neighbours in the batch are answered all the same."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from bartizan_connector.base.errors import Retry, Stop, WrongUse
from bartizan_connector.encode.triton.calls import Access, Server, grpc, may_pass, service_pb2, translated
from bartizan_connector.encode.triton.engine import TritonEngine
from bartizan_connector.space.spec import TowerSpec
from bartizan_triton.repository.serving import Serving
from tests.exports import export_folder
from tests.served import added
from tests.servers.triton import TritonServer


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    repository = tmp_path_factory.mktemp("served") / "models"
    added(repository, export_folder("bert", "fp32"), "model", Serving(backend="python", max_batch=16, delay_us=50_000))
    server = TritonServer(repository)
    server.start()
    connected = Server(Access(url=server.url))
    yield connected
    connected.close()
    server.stop()


def request(ids: np.ndarray, mask: np.ndarray | None = None) -> Any:
    made = service_pb2.ModelInferRequest(model_name="model")
    for name, values in (("input_ids", ids), ("attention_mask", np.ones_like(ids) if mask is None else mask)):
        made.inputs.add(name=name, datatype="INT64", shape=values.shape)
        made.raw_input_contents.append(values.astype("<i8").tobytes())
    return made


FINE = np.full((1, 5), 7)


@pytest.mark.server
@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (request(np.ones((1, 33), dtype=int)), "33 tokens: the tower takes 32 at most; cut the text as its spec says"),
        (request(np.ones((17, 3), dtype=int)), "batch-size must be <= 16"),
        (request(np.ones((1, 3), dtype=int), np.ones((1, 4), dtype=int)), "expected one shape, and a token or more"),
        (request(np.full((1, 3), 99_999)), "ONNX Runtime refused this request"),
        (request(np.ones(3, dtype=int)), "unexpected shape"),
    ],
    ids=["too long", "too many", "two shapes", "no such token", "no batch"],
)
def test_a_request_at_fault_is_told_why_and_its_neighbours_are_answered(calls: Server, wrong: Any, why: str) -> None:
    def ask(each: Any) -> Any:
        try:
            return calls.infer(each, 20).do()
        except grpc.RpcError as error:
            return error

    expected = ask(request(FINE)).raw_output_contents[0]
    with ThreadPoolExecutor(9) as pool:  # the server waits for company: they are one batch
        *fine, refused = pool.map(ask, [*[request(FINE)] * 8, wrong])
    assert isinstance(refused, grpc.RpcError)
    assert refused.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert why in str(refused.details())
    for answer in fine:
        np.testing.assert_allclose(
            np.frombuffer(answer.raw_output_contents[0], dtype="<f4"), np.frombuffer(expected, dtype="<f4"), atol=1e-5
        )
    assert isinstance(translated(refused, "grpc://h:1", "this"), Stop)


class Failing(grpc.RpcError):  # type: ignore[misc]
    def __init__(self, code: Any, details: str = "") -> None:
        self._code, self._details = code, details

    def code(self) -> Any:
        return self._code

    def details(self) -> str:
        return self._details


@pytest.mark.parametrize(
    ("code", "kind", "again"),
    [
        ("UNAVAILABLE", Retry, True),
        ("RESOURCE_EXHAUSTED", Retry, True),
        ("INTERNAL", Retry, True),
        ("DEADLINE_EXCEEDED", Retry, False),
        ("UNAUTHENTICATED", WrongUse, False),
        ("PERMISSION_DENIED", WrongUse, False),
        ("NOT_FOUND", WrongUse, False),
        ("INVALID_ARGUMENT", Stop, False),
        ("UNIMPLEMENTED", Stop, False),
    ],
)
def test_each_failure_is_named_for_the_reaction(code: str, kind: type[Exception], again: bool) -> None:
    error = Failing(getattr(grpc.StatusCode, code), "why")
    assert type(translated(error, "grpc://h:1", "to encode")) is kind
    assert may_pass(error) is again


class Flaky:
    """A server that fails every call, and counts them."""

    url = "grpc://h:1"

    def __init__(self) -> None:
        self.asked = 0

    def metadata(self, model: str, timeout: float) -> Any:
        return self

    def do(self) -> Any:
        self.asked += 1
        raise Failing(grpc.StatusCode.UNAVAILABLE, "busy")

    def close(self) -> None:
        """Nothing to let go."""


def test_retries_end_with_the_deadline_and_with_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Flaky()
    spec = TowerSpec.read(export_folder("bert", "fp32"))
    engine = TritonEngine(server, "model", spec, timeout=0.3)  # type: ignore[arg-type]
    with pytest.raises(Retry, match="busy"):
        engine.run(FINE, FINE, deadline=None)
    assert 3 <= server.asked <= 12  # pauses grow
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with pytest.raises(Retry, match="busy"):
        engine.run(FINE, FINE, deadline=float("inf"))
    before = server.asked
    assert before < 60  # fifty retries without one answer
    with pytest.raises(Retry, match="busy"):
        engine.run(FINE, FINE, deadline=float("inf"))
    assert server.asked == before + 1
