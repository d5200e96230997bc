"""What happens to the server happens to nobody's vectors: killed, restarted, paused, gone for good, guarded, slow."""

import asyncio
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bartizan_connector.base.errors import Retry, SpaceMismatch, WrongUse
from bartizan_connector.encode.settings import encoder_settings
from bartizan_connector.encode.triton.calls import Access, Server
from bartizan_connector.encode.triton.encoder import TritonEncoder
from bartizan_connector.space.spec import TowerSpec
from bartizan_triton.export import export_tower
from tests.encoders import tiny
from tests.exports import export_folder, tower_folder
from tests.served import added, asking
from tests.servers.triton import TritonServer

pytestmark = pytest.mark.server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[TritonServer]:
    repository = tmp_path / "models"
    added(repository, export_folder("bert", "fp32"), "model")
    running = TritonServer(repository)
    running.start()
    yield running
    running.stop()


@pytest.fixture
def client(server: TritonServer) -> Iterator[TritonEncoder]:
    encoder = asking(server, tower_folder("bert"), "model")
    yield encoder
    encoder.close()


def test_clients_recover_from_a_killed_and_restarted_server_inside_their_deadline(
    server: TritonServer, client: TritonEncoder
) -> None:
    expected = client.encode(["a tower of one"], "document").values
    failures: list[BaseException] = []
    ended = threading.Event()

    def ask() -> None:
        while not ended.is_set():
            try:
                came = client.encode(["a tower of one"], "document", timeout=20).values
                np.testing.assert_allclose(came, expected, atol=1e-5)
            except BaseException as error:  # noqa: BLE001  told by the test
                failures.append(error)
                return

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for _ in range(2):
        time.sleep(0.5)
        server.kill()
        server.start()
    time.sleep(1.0)
    ended.set()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_paused_server_is_a_retry_at_the_deadline_and_works_when_it_goes_on(
    server: TritonServer, client: TritonEncoder
) -> None:
    server.pause()
    begun = time.monotonic()
    with pytest.raises(Retry, match="did not answer"):
        client.encode(["a"], "document", timeout=0.5)
    with pytest.raises(Retry):
        asyncio.run(client.aencode(["a"], "document", timeout=0.5))
    assert time.monotonic() - begun < 10
    threading.Timer(0.5, server.resume).start()
    assert len(client.encode(["a"], "document", timeout=20)) == 1


def test_a_server_that_is_gone_is_a_retry_at_the_deadline(server: TritonServer, client: TritonEncoder) -> None:
    server.kill()
    begun = time.monotonic()
    with pytest.raises(Retry, match="is a Triton server listening there"):
        client.encode(["a"], "document", timeout=1.0)
    assert 0.5 < time.monotonic() - begun < 10


def test_a_model_that_was_taken_away_is_named_at_the_deadline(server: TritonServer, client: TritonEncoder) -> None:
    admin = Server(Access(url=server.url))
    admin.unload("model", 10).do()
    with pytest.raises(WrongUse, match=r"serves no model 'model'.*bartizan deploy"):
        client.encode(["a"], "document", timeout=5.0)
    admin.load("model", None, 30).do()
    assert len(client.encode(["a"], "document", timeout=10)) == 1
    admin.close()


def test_another_space_behind_the_same_address_is_refused_after_a_reload(
    server: TritonServer, client: TritonEncoder, tmp_path: Path
) -> None:
    stranger = tiny.saved(tmp_path / "stranger", "bert", dim=8, seed=1)
    export_tower(stranger, tmp_path / "export")
    server.kill()
    shutil.rmtree(server.repository)
    added(server.repository, tmp_path / "export", "model")
    server.start()
    with pytest.raises(SpaceMismatch, match="cannot take the place of tower 'tiny-bert'"):
        client.encode(["a"], "query", timeout=20)
    with pytest.raises(SpaceMismatch):
        asyncio.run(client.aencode(["a"], "query", timeout=20))


def test_a_ladder_comes_down_when_the_server_goes_and_climbs_when_it_is_back(server: TritonServer) -> None:
    below = export_folder("bert", "int8")
    table = {"engine": "triton", "url": server.url, "model": "model", "fallback": str(below)}
    ladder = encoder_settings(table).open(tower_folder("bert"))
    fine, coarse = TowerSpec.read(export_folder("bert", "fp32")).tower_id, TowerSpec.read(below).tower_id
    came = ladder.encode(["a"], "query", timeout=10)
    assert (came.tower_id, came.degraded) == (fine, None)
    for fault, mend in ((server.pause, server.resume), (server.kill, server.start)):
        fault()
        for _ in range(4):
            begun = time.monotonic()
            came = ladder.encode(["a"], "query", timeout=3.0)
            assert time.monotonic() - begun < 3.0
            assert came.tower_id == coarse
            assert came.degraded
            assert came.degraded.startswith(f"not by {server.url}")
        mend()
        deadline = time.monotonic() + 20
        while ladder.encode(["a"], "query", timeout=4.0).degraded:
            assert time.monotonic() < deadline, "it never climbed again"
            time.sleep(0.2)
    ladder.close()


def test_a_ladder_opens_while_the_server_is_away(server: TritonServer) -> None:
    server.kill()
    table = {"engine": "triton", "url": server.url, "model": "model", "fallback": str(export_folder("bert", "int8"))}
    ladder = encoder_settings(table).open(tower_folder("bert"))
    assert "did not answer" in str(asyncio.run(ladder.aencode(["a"], "query", timeout=1.0)).degraded)
    ladder.close()
