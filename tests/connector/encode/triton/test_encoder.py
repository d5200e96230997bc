"""TritonEncoder against the real server: trained = exported = served, whatever the company, and what it refuses."""

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bartizan_connector.base.errors import Retry, SpaceMismatch, Stop, WrongUse
from bartizan_connector.encode.encoder import Encoder
from bartizan_connector.encode.onnx import OnnxEncoder
from bartizan_connector.encode.settings import encoder_settings
from bartizan_connector.encode.triton.calls import Access
from bartizan_connector.encode.triton.encoder import TritonEncoder
from bartizan_connector.space.spec import TowerSpec
from bartizan_connector.space.tokens import Tokens
from bartizan_connector.space.vectors import SparseVector
from bartizan_connector.testing.encoder import EncoderSuite
from bartizan_encoders.local import TorchEncoder
from bartizan_encoders.tower import Tower
from bartizan_training.demo.servers.ports import free_ports
from bartizan_triton.golden import golden_texts
from bartizan_triton.repository.serving import Serving
from tests.encoders import tiny
from tests.exports import export_folder, tower_folder
from tests.served import added, asking
from tests.servers.triton import TritonServer

pytestmark = pytest.mark.server

TEXTS = golden_texts(32)
ENCODABLE = st.characters(exclude_categories=["Cs"])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """Serves tiny towers of several kinds, each under a name of its own."""
    repository = tmp_path_factory.mktemp("served") / "models"
    for kind in ("bert", "llama", "sparse-bert"):
        added(repository, export_folder(kind, "fp32"), kind)
    added(repository, export_folder("sparse-bert", "fp32"), "few-terms", Serving(backend="python", terms=3))
    added(repository, export_folder("bert", "int8"), "coarse")
    added(repository, export_folder("bert", "fp32"), "narrow", Serving(backend="python", max_batch=3, instances=2))
    running = TritonServer(repository)
    running.start()
    yield running
    running.stop()


class TestTheSuite(EncoderSuite):
    @pytest.fixture(autouse=True)
    def _serving(self, server: TritonServer) -> None:
        self._server = server

    def make(self) -> Encoder:
        return asking(self._server, export_folder("bert", "fp32"), "bert")


class TestTheSuiteOfASparseTower(TestTheSuite):
    def make(self) -> Encoder:
        return asking(self._server, export_folder("sparse-bert", "fp32"), "sparse-bert")


class TestTheSuiteInNarrowBatches(TestTheSuite):
    def make(self) -> Encoder:
        return asking(self._server, export_folder("bert", "fp32"), "narrow")


def values(encoder: Encoder, texts: Sequence[str]) -> np.ndarray:
    came = encoder.encode(texts, "document").values
    assert isinstance(came, np.ndarray)
    return came


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_trained_is_exported_is_served(server: TritonServer, kind: str) -> None:
    trained = values(TorchEncoder(Tower.load(tower_folder(kind))), TEXTS)
    exported, served = OnnxEncoder.open(export_folder(kind, "fp32")), asking(server, tower_folder(kind), kind)
    assert (trained * values(exported, TEXTS)).sum(axis=1).min() > 0.9999
    assert (trained * values(served, TEXTS)).sum(axis=1).min() > 0.9999
    np.testing.assert_allclose(values(exported, TEXTS), values(served, TEXTS), atol=1e-6)
    served.close()


def sparse(encoder: Encoder, texts: Sequence[str]) -> tuple[SparseVector, ...]:
    came = encoder.encode(texts, "document").values
    assert isinstance(came, tuple)
    return came


def heaviest(vector: SparseVector, count: int) -> set[int]:
    return set(vector.indices[np.argsort(-vector.weights, kind="stable")[:count]].tolist())


def scores(vectors: Sequence[SparseVector], dim: int) -> np.ndarray:
    rows = np.zeros((len(vectors), dim))
    for row, vector in zip(rows, vectors, strict=True):
        row[vector.indices] = vector.weights
    return rows @ rows.T


def test_a_sparse_tower_is_served_with_its_terms_and_scores(server: TritonServer) -> None:
    folder = export_folder("sparse-bert", "fp32")
    served = asking(server, folder, "sparse-bert")
    dim = served.spec.dim
    trained = sparse(TorchEncoder(Tower.load(tower_folder("sparse-bert"))), TEXTS)
    exported, came = sparse(OnnxEncoder.open(folder), TEXTS), sparse(served, TEXTS)
    for one, other in zip(exported, came, strict=True):
        np.testing.assert_array_equal(one.indices, other.indices)
        np.testing.assert_allclose(one.weights, other.weights, atol=1e-5)
    for one, other in zip(trained, came, strict=True):
        assert heaviest(one, 10) == heaviest(other, 10)
    largest = scores(trained, dim).max()
    assert np.abs(scores(trained, dim) - scores(came, dim)).max() / largest < 1e-3
    served.close()


def test_fewer_terms_are_the_heaviest_ones(server: TritonServer) -> None:
    folder = export_folder("sparse-bert", "fp32")
    served = asking(server, folder, "few-terms")
    for whole, few in zip(sparse(OnnxEncoder.open(folder), TEXTS), sparse(served, TEXTS), strict=True):
        heaviest = np.sort(whole.weights)[::-1][:3]
        np.testing.assert_allclose(np.sort(few.weights)[::-1], heaviest, atol=1e-5)
        assert set(few.indices) <= set(whole.indices)
    served.close()


def test_int8_is_served_as_it_was_exported(server: TritonServer) -> None:
    exported, served = OnnxEncoder.open(export_folder("bert", "int8")), asking(server, tower_folder("bert"), "coarse")
    assert (values(exported, TEXTS) * values(served, TEXTS)).sum(axis=1).min() > 0.99
    came = served.encode(["a"], "query")
    fine = TowerSpec.read(tower_folder("bert"))
    assert came.tower_id == exported.spec.tower_id != fine.tower_id
    assert came.space_id == fine.space_id
    assert served.spec == exported.spec
    served.close()


@pytest.fixture(scope="module")
def both(server: TritonServer) -> Iterator[tuple[TritonEncoder, OnnxEncoder]]:
    served, exported = (
        asking(server, export_folder("bert", "fp32"), "bert"),
        OnnxEncoder.open(export_folder("bert", "fp32")),
    )
    yield served, exported
    served.close()


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.one_of(st.text(ENCODABLE, max_size=30), st.sampled_from(TEXTS)), min_size=1, max_size=12))
def test_any_text_in_any_company_gives_the_vector_of_the_export(
    both: tuple[TritonEncoder, OnnxEncoder], texts: list[str]
) -> None:
    served, exported = both
    alone = np.concatenate([values(exported, [text]) for text in texts])
    np.testing.assert_allclose(values(served, texts), alone, atol=1e-5)


def test_many_callers_at_once_are_joined_and_each_gets_its_own(server: TritonServer) -> None:
    served, exported = (
        asking(server, export_folder("bert", "fp32"), "bert"),
        OnnxEncoder.open(export_folder("bert", "fp32")),
    )
    texts = [f"{text} {n}" for n in range(6) for text in TEXTS]
    expected = values(exported, texts)

    async def all_at_once() -> list[np.ndarray]:
        came = await asyncio.gather(*(served.aencode([text], "document") for text in texts))
        return [one.values for one in came if isinstance(one.values, np.ndarray)]

    for _ in range(2):  # in two event loops, one after the other
        np.testing.assert_allclose(np.concatenate(asyncio.run(all_at_once())), expected, atol=1e-5)
    served.close()


def test_a_cancelled_call_ends_and_the_next_one_works(server: TritonServer) -> None:
    served = asking(server, export_folder("bert", "fp32"), "bert")

    async def cancelled() -> None:
        task = asyncio.create_task(served.aencode(TEXTS * 100, "document"))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(await served.aencode(["a"], "document")) == 1

    asyncio.run(cancelled())
    served.close()


def test_a_tower_of_another_space_is_refused_before_the_first_vector(server: TritonServer, tmp_path: Path) -> None:
    stranger = tiny.saved(tmp_path / "stranger", "bert", dim=8, seed=1)
    with pytest.raises(SpaceMismatch, match="cannot take the place of tower 'tiny-bert'") as refused:
        asking(server, stranger, "bert")
    assert refused.value.expected == TowerSpec.read(stranger).space_id
    assert refused.value.came == TowerSpec.read(tower_folder("bert")).space_id


def test_a_model_that_is_not_there_is_named_with_those_that_are(server: TritonServer) -> None:
    with pytest.raises(
        WrongUse,
        match=r"serves no model 'brt'; it serves bert, coarse, few-terms, llama, narrow, sparse-bert.*bartizan deploy",
    ):
        asking(server, tower_folder("bert"), "brt")
    with pytest.raises(WrongUse, match="has no version 7 ready, but \\[1\\]"):
        asking(server, tower_folder("bert"), "bert", version=7)


def test_nobody_there_is_a_retry_that_says_what_to_look_at() -> None:
    (port,) = free_ports(1)
    spec = TowerSpec.read(tower_folder("bert"))
    with pytest.raises(Retry, match=rf"grpc://127.0.0.1:{port} did not answer.*is a Triton server listening there"):
        TritonEncoder.open(
            Access(url=f"grpc://127.0.0.1:{port}"), Tokens.read(tower_folder("bert"), spec), spec, timeout=0.5
        )


def test_the_http_port_is_no_grpc_port(server: TritonServer) -> None:
    spec = TowerSpec.read(tower_folder("bert"))
    with pytest.raises((Retry, Stop), match="Triton server"):
        TritonEncoder.open(
            Access(url=f"grpc://127.0.0.1:{server.http_port}"), Tokens.read(tower_folder("bert"), spec), spec, timeout=1
        )


def test_the_table_opens_it(server: TritonServer) -> None:
    settings = encoder_settings({"engine": "triton", "url": server.url, "model": "bert"})
    encoder = settings.open(tower_folder("bert"))
    assert len(encoder.encode(["a", "b"], "query")) == 2
    encoder.close()
