"""KafkaSource on a real broker: the suite of sources, and what is a topic's own."""

import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from bartizan_connector.stream.kafka.source import KafkaSource
from bartizan_connector.stream.source import Source
from bartizan_connector.testing.source import Medium, SourceSuite
from tests.connector.stream.kafka.media import TopicMedium, wait_for
from tests.servers.kafka import KafkaServer

pytestmark = pytest.mark.server


class TestTheSuite(SourceSuite):
    keeps_place = True
    patience = 30.0

    @pytest.fixture(autouse=True)
    def _broker(self, kafka_server: KafkaServer) -> None:
        self._server = kafka_server

    def make(self, folder: Path) -> Medium:
        return TopicMedium(self._server)

    def take_over(self, medium: Medium, source: Source) -> Source:
        """The group puts the first reader out, which does not notice before another has the partition."""
        assert isinstance(medium, TopicMedium)
        assert isinstance(source, KafkaSource)
        reader = source._reader
        assert reader is not None
        member = reader._consumer
        poll, member.poll = member.poll, stalled
        put_out(self._server, medium.topic, member.group_metadata().member_id)
        other = medium.open(3)
        assert other.poll(0.01) is None
        wait_for(lambda: other._reader is not None and other._reader.assigned)
        member.poll = poll
        wait_for(lambda: not reader.assigned)
        return other


def stalled(timeout_ms: int) -> dict[Any, Any]:
    """What a reader that is held up gets."""
    time.sleep(timeout_ms / 1000)
    return {}


def put_out(server: KafkaServer, topic: str, member: str) -> None:
    """As an operator would."""
    from kafka.admin import KafkaAdminClient, MemberToRemove

    with closing(KafkaAdminClient(bootstrap_servers=server.bootstrap)) as admin:
        admin.remove_group_members(f"of-{topic}", [MemberToRemove(member_id=member)])
