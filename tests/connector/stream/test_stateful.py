"""Two partitions, several batches in flight, rebalances, redelivery, deaths: the index equals the plain dictionary."""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from bartizan_connector.config.settings import ChunkSettings
from bartizan_connector.encode.encoder import Encoder
from bartizan_connector.space.vectors import SparseVector
from bartizan_connector.store.backend import Backend
from bartizan_connector.store.collection import Row
from bartizan_connector.store.embedded import EmbeddedBackend
from bartizan_connector.store.memory import MemoryBackend
from bartizan_connector.store.milvus import MilvusBackend
from bartizan_connector.stream.chunks import Cutter, Piece
from bartizan_connector.stream.patience import Patience
from bartizan_connector.stream.records import Put
from bartizan_connector.stream.report import Report
from bartizan_connector.stream.source import Message
from bartizan_connector.stream.work import run
from tests.connector.stream.disruptions import (
    UNENCODABLE,
    UNSTORABLE,
    DoomedBackend,
    DoomedEncoder,
    DoomedWords,
    Fate,
    GuardedSteps,
    Killed,
)
from tests.connector.stream.reading import WordReading
from tests.connector.stream.streams import collection_for
from tests.connector.stream.topics import PoliteSource, Topic, TopicSource
from tests.connector.testing.sparse_fake import WordEncoder
from tests.servers.milvus import MilvusServer

IDS = {"0": ("a", "b", 'quote " and \\'), "1": ("c", "ü")}
"""Partition → the ids that live there."""
TEXTS = ("apple", "banana", "cherry")
SPARSE = WordEncoder(1000)
DENSE = DoomedEncoder(Fate())
NO_WAIT = Patience(attempts=50, seconds=1e9, sleep=lambda seconds: None)


@dataclass(frozen=True)
class Written:
    """One change of the topic in the words of the tests; without a text it is a delete."""

    id: str
    text: str | None
    message: Message


changes = st.tuples(
    st.sampled_from([(partition, id) for partition, ids in IDS.items() for id in ids]),
    st.sampled_from((*TEXTS, *TEXTS, UNENCODABLE, UNSTORABLE)) | st.none(),
    st.integers(0, 3),
    st.booleans(),
)
"""Where, what, what the clock says, and whether a delete is a message without a value."""

disruptions = st.lists(
    st.tuples(st.sampled_from(["lose", "reassign", "away"]), st.integers(1, 30), st.sampled_from(list(IDS))), max_size=4
)


class World(RuleBasedStateMachine):
    """A topic, an index, and the dictionary that the index must equal."""

    make: Callable[[], Backend]
    """A back-end that keeps what it is given for as long as the world lasts."""
    sparse = True
    """Whether there is a second leg, which is sparse."""
    cutter = Cutter({}, None)
    """How long texts become several rows; not at all here."""
    longer: Mapping[str, str] = {}
    """What stands in the place of a text."""
    numbers = count()

    def __init__(self) -> None:
        super().__init__()
        self.topic = Topic(partitions={partition: [] for partition in IDS})
        self.log: list[Written] = []
        self.backend = type(self).make()
        specs = (DENSE.spec, SPARSE.spec) if self.sparse else (DENSE.spec,)
        self.collection = collection_for(*specs, name=f"world{next(self.numbers)}")
        self.words: dict[str, list[Row]] = {}
        self.unsettled: list[str] = []
        self.versions: dict[str, int] = {}

    @rule(changes=st.lists(changes, min_size=1, max_size=8))
    def append(self, changes: list[tuple[tuple[str, str], str | None, int, bool]]) -> None:
        """The topic grows; its clocks jump to and fro."""
        for (partition, id), short, clock, bare in changes:
            text = None if short is None else self.longer.get(short, short)
            record = {"_id": id} | ({"_deleted": True} if text is None else {"text": text})
            value = None if text is None and bare else json.dumps(record).encode()
            message = self.topic.append(partition, value, milliseconds=1_000_000 + clock, key=id)
            self.log.append(Written(id, text, message))

    @precondition(lambda self: self.log)
    @rule(partition=st.sampled_from(list(IDS)), messages=st.integers(1, 6))
    def redeliver(self, partition: str, messages: int) -> None:
        """The broker forgets commits."""
        self.topic.committed[partition] = max(0, self.topic.committed.get(partition, 0) - messages)

    @precondition(lambda self: self.log)
    @rule(
        batch_size=st.integers(1, 3),
        in_flight=st.integers(1, 4),
        kill=st.tuples(st.sampled_from(["before", "after", "torn"]), st.integers(1, 30)),
        disruptions=disruptions,
    )
    def ingest_and_die(
        self, batch_size: int, in_flight: int, kill: tuple[str, int], disruptions: list[tuple[str, int, str]]
    ) -> None:
        """A worker that is dead after that effect, or lives when it has fewer."""
        how, number = kill
        before, after = (number, 0) if how == "before" else (0, number)
        fate = Fate(kill_before=before, kill_after=after, torn=how == "torn")
        with suppress(Killed):
            self.work(fate, batch_size, in_flight, disruptions)

    @precondition(lambda self: self.log)
    @rule(
        batch_size=st.integers(1, 3),
        in_flight=st.integers(2, 4),
        partition=st.sampled_from(list(IDS)),
        at=st.integers(1, 6),
        disruptions=disruptions,
    )
    def ingest_and_be_overtaken(
        self, batch_size: int, in_flight: int, partition: str, at: int, disruptions: list[tuple[str, int, str]]
    ) -> None:
        """While a batch is encoded, another worker takes a partition over, and brings it to its end."""
        fate = Fate()

        def take_over() -> None:
            with fate.lock:
                self.work(Fate(), 3, 2, [], only=partition)

        fate.at_encoding = {at: take_over}
        self.work(fate, batch_size, in_flight, disruptions)

    @precondition(lambda self: self.log)
    @rule(
        batch_size=st.integers(1, 3),
        in_flight=st.integers(2, 4),
        partition=st.sampled_from(list(IDS)),
        at=st.integers(1, 20),
    )
    def ingest_and_hand_over(self, batch_size: int, in_flight: int, partition: str, at: int) -> None:
        """A partition is given up in good order, and its new owner brings it to its end before anything goes on."""
        source = PoliteSource(
            self.topic, batch_size, on_given_up=lambda partition: self.work(Fate(), 3, 2, [], only=partition)
        )

        def ask() -> None:
            source.asked = partition

        self.work(Fate(), batch_size, in_flight, [], source=source, actions={at: ask})

    @precondition(lambda self: self.log)
    @rule(batch_size=st.integers(1, 4), in_flight=st.integers(1, 4), disruptions=disruptions)
    def ingest(self, batch_size: int, in_flight: int, disruptions: list[tuple[str, int, str]]) -> None:
        """A worker that lives, whatever it loses; the one after it loses nothing, and then all must be right."""
        self.work(Fate(), batch_size, in_flight, disruptions)
        self.work(Fate(), batch_size, in_flight, [])
        self.compare()

    def work(
        self,
        fate: Fate,
        batch_size: int,
        in_flight: int,
        disruptions: list[tuple[str, int, str]],
        only: str | None = None,
        source: TopicSource | None = None,
        actions: Mapping[int, Callable[[], None]] | None = None,
    ) -> None:
        """One worker, from its start to its end. `only`: one partition, while another worker has the others. `actions`:
        what happens at which effect."""
        source = source or TopicSource(self.topic, batch_size, before=lambda verb: self.verb(fate, verb))
        source.ends = True
        for partition in IDS:
            if only in (None, partition):
                self.topic.assign(partition, source)
        actions = dict(actions or {})
        for what, number, partition in disruptions:
            if what == "lose":
                actions[number] = lambda partition=partition: self.lose(source, partition)  # type: ignore[misc]
            elif what == "reassign":
                actions[number] = lambda partition=partition: self.reassign(source, partition)  # type: ignore[misc]
        fate.at_effect = actions
        fate.away = frozenset(number for what, number, _ in disruptions if what == "away")
        shares: list[Report] = []
        encoders: dict[str, Encoder] = {"dense": DoomedEncoder(fate)} | ({"sparse": SPARSE} if self.sparse else {})
        report = run(
            source,
            encoders,
            DoomedBackend(self.backend, fate),
            self.collection,
            words=DoomedWords(self.words, self.unsettled, fate, beside=only is not None),
            cutter=self.cutter,
            patience=NO_WAIT,
            on_batch=shares.append,
            in_flight=in_flight,
        )
        for each in (report, *shares):
            assert each.read == (
                each.written + each.unchanged + each.stale + each.deleted + each.dead + each.dropped
            ), "every message is counted once"
        assert report.read == sum(share.read for share in shares)

    def verb(self, fate: Fate, verb: str) -> None:
        if fate.dead:
            raise Killed
        if verb in ("commit", "dead_letter"):
            # Nothing may take a partition away between `owns` and `commit`: both are one thread's, as with a broker.
            fate.effects += 1
            if fate.effects == fate.kill_before:
                fate.dead = True
                raise Killed

    def lose(self, source: TopicSource, partition: str) -> None:
        """The partition is somebody's who has not begun yet."""
        if self.topic.owners[partition][0] is source:
            self.topic.assign(partition, TopicSource(self.topic))

    def reassign(self, source: TopicSource, partition: str) -> None:
        """It goes away and comes back: what was read before is void."""
        if self.topic.owners[partition][0] is source:
            self.topic.assign(partition, source)

    def compare(self) -> None:
        """Rows, vectors of both legs, heads, words and dead letters, each against the dictionary."""
        state: dict[str, Written] = {}
        bad = {each.message.position for each in self.log if each.text in (UNENCODABLE, UNSTORABLE)}
        last = {each.id: each.message.position for each in self.log}
        for written in self.log:
            if written.message.position not in bad:
                state[written.id] = written
        alive = {id: written for id, written in state.items() if written.text is not None}
        store = self.backend.open(self.collection)
        ids = [id for ids in IDS.values() for id in ids]
        heads = store.heads(ids)
        assert {id: (head.origin, head.offset, head.deleted) for id, head in heads.items()} == {
            id: (written.message.origin, written.message.offset, written.text is None) for id, written in state.items()
        }
        for id, head in heads.items():
            assert head.version >= self.versions.get(id, 0), "the versions of an id grow"
            self.versions[id] = head.version
        documents = store.get(ids, vectors=True)
        assert {id: document.fields["text"] for id, document in documents.items()} == {
            id: written.text for id, written in alive.items()
        }
        pieces = {id: self.pieces(written) for id, written in alive.items()}
        for id, document in documents.items():
            for row, piece in zip(document.rows, pieces[id], strict=True):
                self.compare_vectors(row, piece.encoded)
            assert document.head == heads[id]
        assert {id: [(row.chunk, row.fields["text"]) for row in rows] for id, rows in self.words.items()} == {
            id: [(number, piece.text) for number, piece in enumerate(each)] for id, each in pieces.items()
        }
        assert store.count() == sum(map(len, pieces.values())), "no chunk is left over"
        letters = {letter.position for letter in self.topic.letters}
        assert bad & set(last.values()) <= letters <= bad, "what is bad is set aside, unless newer news made it stale"
        for partition, log in self.topic.partitions.items():
            assert self.topic.committed.get(partition, 0) == len(log)
        store.close()

    def pieces(self, written: Written) -> tuple[Piece, ...]:
        """The rows of a document."""
        put = Put(id=written.id, text=str(written.text), version=0, cut=self.cutter.cut)
        return self.cutter.pieces([put])[0]

    def compare_vectors(self, row: Row, text: str) -> None:
        dense = row.vectors["dense"].value
        assert isinstance(dense, np.ndarray)
        np.testing.assert_allclose(dense, DENSE.encode([text], "document").values[0], atol=1e-6)
        if not self.sparse:
            return
        sparse = row.vectors["sparse"].value
        assert isinstance(sparse, SparseVector)
        (expected,) = (vector.value for vector in SPARSE.encode([text], "document"))
        assert isinstance(expected, SparseVector)
        assert list(sparse.indices) == list(expected.indices)
        np.testing.assert_allclose(sparse.weights, expected.weights, atol=1e-6)

    def teardown(self) -> None:
        if self.log:
            self.ingest(3, 3, [])
        with suppress(Exception):
            self.backend.drop(self.collection.name)


@pytest.fixture(autouse=True)
def _guarded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bartizan_connector.stream.work.Steps", GuardedSteps)


def drive(
    make: Callable[[], Backend], examples: int, steps: int, *, sparse: bool = True, world: type[World] = World
) -> None:
    class Driven(world):  # type: ignore[valid-type, misc]
        pass

    Driven.make = staticmethod(make)
    Driven.sparse = sparse
    run_state_machine_as_test(
        Driven,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            phases=[Phase.generate],  # threads do not fail twice alike, so there is nothing to shrink
            suppress_health_check=list(HealthCheck),
        ),
    )


class LongWorld(World):
    """Documents of one, two and four rows, which become each other."""

    cutter = Cutter({"dense": WordReading(6), "sparse": WordReading(20)}, ChunkSettings(overlap=2))
    longer: Mapping[str, str] = {
        "banana": "Two sentences of bananas. And three more words.",
        "cherry": "One of cherries. Another of cherries.\n\n" + "many " * 9 + "words 漢字。 The end",
    }


@pytest.mark.packaging
def test_memory_equals_the_dictionary_with_long_documents() -> None:
    assert [
        len(
            LongWorld.cutter.pieces(
                [Put(id="a", text=LongWorld.longer.get(text, text), version=0, cut=LongWorld.cutter.cut)]
            )[0]
        )
        for text in TEXTS
    ] == [1, 2, 5]
    drive(MemoryBackend, examples=30, steps=12, world=LongWorld)


@pytest.mark.packaging
def test_an_embedded_store_equals_the_dictionary_with_long_documents(tmp_path: Path) -> None:
    backend = EmbeddedBackend(tmp_path / "index.bartizan")
    drive(lambda: backend, examples=6, steps=10, world=LongWorld)
    backend.close()


def test_a_lite_file_equals_the_dictionary_with_long_documents(tmp_path: Path) -> None:
    backend = MilvusBackend(str(tmp_path / "lite.db"), consistency="Strong", index="flat")
    drive(lambda: backend, examples=1, steps=5, world=LongWorld)
    backend.close()


def test_memory_equals_the_dictionary() -> None:
    drive(MemoryBackend, examples=60, steps=15)


def test_an_embedded_store_equals_the_dictionary(tmp_path: Path) -> None:
    backend = EmbeddedBackend(tmp_path / "index.bartizan")
    drive(lambda: backend, examples=10, steps=12)
    backend.close()


@pytest.mark.packaging
def test_a_lite_file_equals_the_dictionary(tmp_path: Path) -> None:
    backend = MilvusBackend(str(tmp_path / "lite.db"), consistency="Strong", index="flat")
    drive(lambda: backend, examples=2, steps=6)
    backend.close()


@pytest.mark.server
def test_a_lite_file_equals_the_dictionary_for_long(tmp_path: Path) -> None:
    backend = MilvusBackend(str(tmp_path / "lite.db"), consistency="Strong", index="flat")
    drive(lambda: backend, examples=10, steps=12)
    backend.close()


@pytest.mark.server
def test_a_server_equals_the_dictionary(milvus: MilvusServer) -> None:
    backend = MilvusBackend(milvus.uri, consistency="Strong", index="flat")
    drive(lambda: backend, examples=5, steps=10, sparse=False)  # the server of the tests is older than sparse vectors
    backend.close()
