"""A collection as ingest leaves it, on each back-end, and the damages that can be planted into it."""

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from bartizan_connector.config import Config
from bartizan_connector.config.settings import CollectionSettings, SpaceSettings
from bartizan_connector.config.towers import collection_of
from bartizan_connector.search.configured import open_words
from bartizan_connector.space.vectors import Vector
from bartizan_connector.store.collection import Collection, Head, Row
from bartizan_connector.store.settings import BackendSettings
from bartizan_connector.stream.fence import opened
from bartizan_connector.stream.work import run
from bartizan_connector.testing.encoder_fake import HashEncoder
from tests.connector.search.configured import FakeSettings, Log
from tests.connector.stream.streams import ListSource, message

TOWER = HashEncoder(dim=8)
STRANGER = HashEncoder(dim=8, seed=77)
TEXTS = {f"d{number}": f"a text of its own, number {number}" for number in range(12)}
GONE = ("gone", "gone too")
DOCUMENTS = [message(id, text, 1) for id, text in TEXTS.items()]
DELETES = [message(id, None, 1) for id in GONE]


@dataclass
class Place:
    """A configured collection."""

    config: Config
    raw: "Raw"

    @property
    def collection(self) -> Collection:
        return collection_of(self.config)

    def ingest(self, *, name: str | None = None, words: bool = True) -> None:
        """Bring it up to DOCUMENTS and DELETES."""
        collection = self.collection.model_copy(update={"name": name}) if name else self.collection
        with closing(self.config.backend.open()) as backend:
            index = open_words(self.config) if words else None
            run(ListSource([*DOCUMENTS, *DELETES]), {"dense": TOWER}, backend, collection, words=index)
            if index is not None:
                index.close()

    @contextmanager
    def store(self) -> Iterator[Any]:
        with closing(self.config.backend.open()) as backend, closing(backend.open(self.collection, create=False)) as it:
            yield it

    def found(self) -> set[str]:
        """What a search by vectors finds."""
        with self.store() as store:
            hits = store.search("dense", TOWER.encode(["a text"], "query"), 100)[0]
            assert all(hit.fields["text"] == TEXTS.get(hit.id) for hit in hits)
            return {hit.id for hit in hits}


class Raw(Protocol):
    """Changes made behind the store's back."""

    def remove_row(self, place: Place, id: str) -> None: ...
    def put_row(self, place: Place, row: Row) -> None: ...
    def put_head(self, place: Place, head: Head) -> None: ...
    def remove_head(self, place: Place, id: str) -> None: ...
    def put_contract(self, place: Place, contract: str) -> None: ...


def place_at(folder: Path, uri: str, raw: Raw, name: str = "docs", *, lexical: bool | Path | None = None) -> Place:
    (folder / "tower").mkdir(parents=True, exist_ok=True)
    TOWER.spec.write(folder / "tower")
    encoder = FakeSettings(towers={"tower": TOWER}, log=Log())
    config = Config(
        collection=CollectionSettings(name=name),
        spaces={"dense": SpaceSettings(document_tower=folder / "tower")},
        encoders={"document": encoder, "query": encoder},
        backend=BackendSettings(
            uri=uri, lexical=folder / "words" if lexical is None else lexical, consistency="Strong"
        ),
    )
    return Place(config, raw)


class Embedded:
    """By SQL."""

    def remove_row(self, place: Place, id: str) -> None:
        self._do(place, lambda number: [(f"DELETE FROM rows_{number} WHERE id = ?", (id,))])

    def put_row(self, place: Place, row: Row) -> None:
        with place.store() as store:
            head = store.heads([row.id]).get(row.id)
            store.upsert([replace(row, version=1, vectors=_vectors(row.id))])
        (self.put_head(place, head) if head else self.remove_head(place, row.id))
        vector = row.vectors["dense"].value if row.vectors else None
        if vector is not None:
            blob = np.asarray(vector, "<f4").tobytes()
            sql = "UPDATE vectors_{0}_0 SET value = ? WHERE row = (SELECT row FROM rows_{0} WHERE id = ?)"
            self._do(place, lambda number: [(sql.format(number), (blob, row.id))])

    def put_head(self, place: Place, head: Head) -> None:
        values = (head.id, head.version, head.hash, head.deleted, head.origin, head.offset)
        self._do(place, lambda number: [(f"INSERT OR REPLACE INTO heads_{number} VALUES (?, ?, ?, ?, ?, ?)", values)])

    def remove_head(self, place: Place, id: str) -> None:
        self._do(place, lambda number: [(f"DELETE FROM heads_{number} WHERE id = ?", (id,))])

    def put_contract(self, place: Place, contract: str) -> None:
        self._do(place, lambda number: [("UPDATE collections SET contract = ? WHERE number = ?", (contract, number))])

    def _do(self, place: Place, statements: Callable[[int], list[tuple[str, tuple[Any, ...]]]]) -> None:
        with closing(sqlite3.connect(place.config.backend.path)) as connection:
            sql = "SELECT number FROM collections JOIN aliases USING (physical) WHERE name = ?"
            (number,) = connection.execute(sql, (place.config.collection.name,)).fetchone()
            with connection:
                for sql, values in statements(number):
                    connection.execute(sql, values)


class Milvus:
    """By a client of one's own."""

    def remove_row(self, place: Place, id: str) -> None:
        with self._client(place) as (client, physical):
            client.delete(physical, filter=f'id == "{id}"', timeout=30)

    def put_row(self, place: Place, row: Row) -> None:
        vector = (row.vectors or _vectors(row.id))["dense"].value
        fields = {"title": "", **row.fields}
        with self._client(place) as (client, physical):
            entity = {"pk": f"{row.id}#{row.chunk}", "id": row.id, "chunk": row.chunk, "dense": vector, **fields}
            client.upsert(physical, [entity], timeout=30)

    def put_head(self, place: Place, head: Head) -> None:
        with self._client(place) as (client, physical):
            entity = {
                "id": head.id, "version": head.version, "hash": head.hash, "deleted": head.deleted, "chunks": 1,
                "more": "", "dummy": [0.0, 0.0],
            }  # fmt: skip
            client.upsert(f"{physical}__heads", [entity], timeout=30)

    def remove_head(self, place: Place, id: str) -> None:
        with self._client(place) as (client, physical):
            client.delete(f"{physical}__heads", filter=f'id == "{id}"', timeout=30)

    def put_contract(self, place: Place, contract: str) -> None:
        with self._client(place) as (client, physical):
            client.alter_collection_properties(physical, {"bartizan.collection": contract}, timeout=30)

    @contextmanager
    def _client(self, place: Place) -> Iterator[tuple[Any, str]]:
        from pymilvus import MilvusClient

        from bartizan_connector.store.milvus import lite

        backend = place.config.backend
        address = lite.serve(backend.path, create=False) if backend.is_file else backend.uri
        client = MilvusClient(address, timeout=30)
        try:
            described = client.describe_collection(place.config.collection.name, timeout=30)
            yield client, described["collection_name"]
        finally:
            client.close()
            if backend.is_file:
                lite.release(backend.path)


def _vectors(id: str) -> Mapping[str, Vector]:
    return {"dense": TOWER.encode([TEXTS.get(id, "a stray")], "document")[0]}


def row_of(id: str, text: str, vector: Vector | None = None) -> Row:
    return Row(
        id=id,
        fields={"title": "", "text": text},
        vectors={"dense": vector} if vector else {},
        version=1,
        hash="h",
    )


def _foreign(place: Place) -> None:
    place.raw.put_row(place, row_of("d9", TEXTS["d9"], STRANGER.encode([TEXTS["d9"]], "document")[0]))


def _nan(place: Place) -> None:
    vector = Vector(TOWER.spec.space_id, np.full(8, np.nan, np.float32))
    place.raw.put_row(place, row_of("d10", TEXTS["d10"], vector))


def _wrong_head(place: Place) -> None:
    place.raw.put_head(place, Head(id="d3", version=1, hash="0" * 64))


def _half_written(place: Place) -> None:
    with place.store() as store:
        store.touch([opened(head) for head in store.heads(["d5"]).values()])


def _words_behind(place: Place) -> None:
    index = open_words(place.config)
    assert index is not None
    index.delete(["d6"])
    index.upsert([row_of("never stored", "a stray")])
    index.close()


def _other_words(place: Place) -> None:
    folder = place.config.backend.words_folder
    assert folder is not None
    (folder / "collection.json").write_text('{"collection": "news"}')


def _contract(place: Place) -> None:
    edited = json.loads(place.collection.model_dump_json())
    edited["legs"][0]["space_id"] = STRANGER.spec.space_id
    place.raw.put_contract(place, json.dumps(edited))


def _alias(place: Place) -> None:
    """Another collection of the same space gets the name."""
    other = f"{place.config.collection.name}_other"
    place.ingest(name=other, words=False)
    with closing(place.config.backend.open()) as backend:
        backend.point(place.config.collection.name, backend.aliases()[other])


@dataclass(frozen=True)
class Planted:
    """One damage: how it comes about, what it is called, whether --repair mends it at once or for the next ingest."""

    plant: Callable[[Place], None]
    kind: str
    mends: str = "at once"


DAMAGES: Mapping[str, Planted] = {
    "missing row": Planted(lambda place: place.raw.remove_row(place, "d1"), "missing row", "by ingest"),
    "extra row": Planted(lambda place: place.raw.put_row(place, row_of("stray", "a stray")), "extra row"),
    "stale row": Planted(lambda place: place.raw.put_row(place, row_of("d2", "an old text")), "stale row", "by ingest"),
    "wrong head": Planted(_wrong_head, "wrong head", "by ingest"),
    "missing tombstone": Planted(lambda place: place.raw.remove_head(place, "gone"), "missing tombstone", "never"),
    "word index behind": Planted(_words_behind, "words behind"),
    "word index of another collection": Planted(_other_words, "foreign words", "never"),
    "contract edited": Planted(_contract, "contract", "never"),
    "alias moved": Planted(_alias, "name"),
    "vector of another space": Planted(_foreign, "foreign vector"),
    "NaN vector": Planted(_nan, "broken vector"),
    "half-written batch": Planted(_half_written, "half-written", "by ingest"),
}
