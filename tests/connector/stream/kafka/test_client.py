"""Clients of brokers that are away leave nothing behind, however often they are tried."""

import gc
import logging
import os
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from bartizan_connector.base.errors import Retry
from bartizan_connector.config.kafka import KafkaSettings
from bartizan_connector.stream.kafka.client import KafkaAdminClient, consumer, errors, kafka, leave, opened, translating
from tests.connector.stream.kafka.media import settings_for
from tests.servers.kafka import KafkaServer

CLIENTS: dict[str, Callable[[KafkaSettings], Any]] = {
    "of the group": consumer,
    "of the letters": lambda settings: opened(kafka.KafkaConsumer, settings, group_id=None),
    "of topics": lambda settings: opened(KafkaAdminClient, settings),
}


@pytest.mark.packaging
@pytest.mark.skipif(sys.platform != "linux", reason="where a system tells of open files")
@pytest.mark.parametrize("client", CLIENTS.values(), ids=list(CLIENTS))
@pytest.mark.parametrize("listens", [False, True], ids=["refused", "never answered"])
def test_an_attempt_that_fails_keeps_no_thread_and_no_descriptor(
    client: Callable[[KafkaSettings], Any], listens: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "kafka")  # its records would hold what they speak of
    with socket.socket() as port:
        port.bind(("127.0.0.1", 0))
        if listens:
            port.listen()
        place = f"127.0.0.1:{port.getsockname()[1]}"
        settings = KafkaSettings(kind="kafka", bootstrap=place, topic="t", group="g", connect_timeout=0.2)
        threads, descriptors = _held()
        for _ in range(3):
            _fails(client, settings)
        now = _held()
        assert now[0] <= threads
        assert now[1] <= descriptors


@pytest.mark.server
def test_a_member_that_cannot_leave_is_let_go_of(kafka_server: KafkaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(**_: object) -> None:
        raise errors.UnknownBrokerIdError("nobody coordinates")

    threads = threading.active_count()
    member = consumer(settings_for(kafka_server, kafka_server.topic()))
    assert threading.active_count() > threads
    monkeypatch.setattr(member._coordinator, "close", fails)
    leave(member, 1.0)
    assert threading.active_count() <= threads


def _fails(client: Callable[[KafkaSettings], Any], settings: KafkaSettings) -> None:
    told = pytest.raises(Retry, match=f"no broker answered at {settings.bootstrap} within 0.2 s")
    with told, translating("the first call", settings):
        client(settings)


def _held() -> tuple[int, int]:
    gc.collect()
    return threading.active_count(), len(os.listdir("/proc/self/fd"))
