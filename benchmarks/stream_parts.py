"""What the benchmark of streaming is made of: a broker, a Milvus server, sources and encoders that note the time."""

import json
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bartizan_connector.config.kafka import KafkaSettings
from bartizan_connector.encode.encoder import Encoder
from bartizan_connector.space.spec import Role, TowerSpec
from bartizan_connector.space.vectors import Floats, Vector, Vectors
from bartizan_connector.store.backend import Backend
from bartizan_connector.store.collection import Collection, FieldSpec, Leg, Row
from bartizan_connector.store.embedded import EmbeddedBackend
from bartizan_connector.store.milvus import MilvusBackend
from bartizan_connector.stream.flight import Flight
from bartizan_connector.stream.kafka.source import KafkaSource
from bartizan_connector.stream.watch import Watch
from bartizan_connector.testing.encoder_fake import HashEncoder
from bartizan_training.demo.servers.kafka import Broker
from bartizan_training.demo.servers.milvus import MilvusServer

BATCH = 256
FIELDS = (
    FieldSpec(name="title", type="string", default=""),
    FieldSpec(name="text", type="string", default=""),
)
Open = Callable[[], Backend]


class Watched(KafkaSource, Watch):
    """Notes when each record was produced, and when it was stored and could be found; the commit may come later."""

    freshness: list[float]
    last = 0.0
    count = 0

    def written(self, flight: Flight) -> None:
        batch = flight.batch
        self.last = time.time()
        self.count += len(batch.messages)
        self.freshness = [
            *getattr(self, "freshness", ()),
            *(self.last - message.timestamp for message in batch.messages if message.timestamp),
        ]


@dataclass
class Begun:
    """An encoder that notes when it was first asked."""

    inner: Encoder
    at: float = 0.0
    spec: TowerSpec = field(init=False)

    def __post_init__(self) -> None:
        self.spec = self.inner.spec

    def encode(self, texts: Sequence[str], role: Role, *, timeout: float | None = None) -> Vectors:
        self.at = self.at or time.time()
        return self.inner.encode(texts, role, timeout=timeout)

    async def aencode(self, texts: Sequence[str], role: Role, *, timeout: float | None = None) -> Vectors:
        return await self.inner.aencode(texts, role, timeout=timeout)

    def close(self) -> None:
        self.inner.close()


class Cheap(HashEncoder):
    """One draw a text, for what is not about encoding."""

    def encode(self, texts: Sequence[str], role: Role, *, timeout: float | None = None) -> Vectors:
        values = np.stack([drawn(text, self.spec.dim) for text in texts])
        many = len(texts)
        return Vectors(
            space_id=self.spec.space_id,
            tower_id=self.spec.tower_id,
            values=values,
            tokens=(1,) * many,
            truncated=(False,) * many,
        )


def drawn(text: str, dim: int) -> Floats:
    """A unit vector that depends on the text alone."""
    value = np.random.default_rng(zlib.crc32(text.encode())).standard_normal(dim).astype(np.float32)
    unit: Floats = value / np.linalg.norm(value)
    return unit


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """The parts that are measured together."""

    broker: Broker
    milvus: MilvusServer
    folder: Path
    export: Path
    encoder: Encoder
    documents: Sequence[Mapping[str, str]]

    def opener(self, store: str, name: str) -> Open:
        if store == "embedded":
            return lambda: EmbeddedBackend(self.folder / f"{name}.bartizan")
        return lambda: MilvusBackend(self.milvus.uri)

    def topic(self, records: Sequence[tuple[str, bytes]] = ()) -> str:
        """A topic that holds them, in one partition: the order of the encoder alone."""
        topic = self.broker.topic()
        self.fill(topic, records)
        return topic

    def fill(self, topic: str, records: Sequence[tuple[str, bytes]]) -> None:
        """Write them."""
        from kafka import KafkaProducer

        with closing(KafkaProducer(bootstrap_servers=self.broker.bootstrap, linger_ms=20)) as producer:
            for id, value in records:
                producer.send(topic, key=id.encode(), value=value)
            producer.flush(60)

    def source(self, topic: str, *, follow: bool) -> Watched:
        return Watched.open(self.settings(topic), follow=follow)

    def settings(self, topic: str) -> KafkaSettings:
        facts = {"kind": "kafka", "bootstrap": self.broker.bootstrap, "topic": topic, "group": f"of-{topic}"}
        return KafkaSettings.model_validate(facts | {"batch_size": BATCH})


def records_of(documents: Sequence[Mapping[str, str]], mark: str = "") -> list[tuple[str, bytes]]:
    return [
        (each["_id"], json.dumps({"title": each["title"], "text": f"{mark}{each['text']}"}).encode())
        for each in documents
    ]


def contract(spec: TowerSpec, name: str) -> Collection:
    return Collection(name=name.replace("-", "_"), legs=(Leg.of(spec),), fields=FIELDS)


def alone(asked: Vectors, vector: Vector) -> Vectors:
    return Vectors(
        space_id=asked.space_id,
        tower_id=asked.tower_id,
        values=np.asarray(vector.value)[None],
        tokens=(1,),
        truncated=(False,),
    )


def row_of(cheap: Cheap, leg: str, number: int) -> Row:
    value = drawn(str(number), cheap.spec.dim)
    text = f"document {number}"
    return Row(
        id=f"d{number}", vectors={leg: Vector(cheap.spec.space_id, value)}, fields={"title": "", "text": text},
        version=1, hash=f"h{number}",
    )  # fmt: skip
