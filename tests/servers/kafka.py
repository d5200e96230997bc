"""The Kafka broker of the tests: what they write into it and read out of it; skipped aloud where it cannot run."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from bartizan_connector.base.errors import Stop
from bartizan_training.demo.servers.kafka import Broker
from tests.needs import unavailable

JARS = Path(__file__).parents[2] / ".tools" / "kafka"


class KafkaServer(Broker):
    """`more` are listeners beside the plain one, by name, what `properties` say of them, and users."""

    def __init__(self, folder: Path, **more: Any) -> None:
        with _here_or_not():
            super().__init__(folder, JARS, **more)

    def start(self) -> None:
        with _here_or_not():
            super().start()

    def produce(self, topic: str, records: Sequence[Mapping[str, Any]]) -> None:
        """Write records: `key`, `value`, and what else `KafkaProducer.send` takes; all are there when it returns."""
        from kafka import KafkaProducer

        with closing(KafkaProducer(bootstrap_servers=self.bootstrap, linger_ms=5)) as producer:
            for sent in [producer.send(topic, **record) for record in records]:
                sent.get(timeout=30)

    def read(self, topic: str) -> list[Any]:
        """Every record of a topic, as another program reads it; none where there is no such topic."""
        from kafka import KafkaConsumer, TopicPartition

        with closing(KafkaConsumer(bootstrap_servers=self.bootstrap, enable_auto_commit=False)) as consumer:
            numbers = consumer.partitions_for_topic(topic)
            if not numbers:
                return []
            places = [TopicPartition(topic, number) for number in sorted(numbers)]
            consumer.assign(places)
            consumer.seek_to_beginning(*places)
            ends, found = consumer.end_offsets(places), []
            while any(consumer.position(place) < ends[place] for place in places):
                for records in consumer.poll(500).values():
                    found += records
        return found


@contextmanager
def _here_or_not() -> Iterator[None]:
    try:
        yield
    except Stop as error:
        unavailable(str(error))
