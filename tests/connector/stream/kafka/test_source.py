"""KafkaSource on a real broker: the suite of sources, and what is a topic's own."""

import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from bartizan_connector.stream.kafka.source import KafkaSource
from bartizan_connector.stream.source import Source
from bartizan_connector.testing.source import Medium, SourceSuite
from tests.connector.stream.kafka.media import TopicMedium, settings_for, wait_for
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
        """The group puts the first reader out, and it is held up until the other has gone: else it would join again,
        and the two might change places."""
        assert isinstance(medium, TopicMedium)
        assert isinstance(source, KafkaSource)
        reader = source._reader
        assert reader is not None
        member, group = reader._consumer, reader._consumer._coordinator
        poll, member.poll = member.poll, stalled
        put_out(self._server, medium.topic, member.group_metadata().member_id)
        other = Other.open(settings_for(self._server, medium.topic, batch_size=3))
        other.on_closed = lambda: setattr(member, "poll", poll)
        other.hold(0.0)  # a member from now on, and nothing is read
        wait_for(lambda: other._reader is not None and other._reader.assigned)
        wait_for(lambda: group._generation.is_lost())
        member._net.run(group._on_join_prepare_async, -1, "")  # how a poll begins that finds it so
        assert not reader.assigned
        return other


class Other(KafkaSource):
    """Says when it has gone."""

    on_closed: Callable[[], None]

    def close(self) -> None:
        super().close()
        self.on_closed()


def stalled(timeout_ms: int) -> dict[Any, Any]:
    """What a reader that is held up gets."""
    time.sleep(timeout_ms / 1000)
    return {}


def put_out(server: KafkaServer, topic: str, member: str) -> None:
    """As an operator would."""
    from kafka.admin import KafkaAdminClient, MemberToRemove

    with closing(KafkaAdminClient(bootstrap_servers=server.bootstrap)) as admin:
        admin.remove_group_members(f"of-{topic}", [MemberToRemove(member_id=member)])
