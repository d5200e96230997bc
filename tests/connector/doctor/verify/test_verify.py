"""Twelve damages planted behind a collection's back, on every back-end: each is found, and mended where it can be."""

from dataclasses import replace
from pathlib import Path
from threading import Event, Thread

import pytest

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.doctor.verify.verification import verify
from bartizan_connector.store.collection import Head
from tests.connector.doctor.verify.collections import (
    DAMAGES,
    GONE,
    TEXTS,
    Embedded,
    Milvus,
    Place,
    Planted,
    place_at,
)
from tests.servers.milvus import MilvusServer

WHOLE = ("word index of another collection", "contract edited", "alias moved")
"""What concerns the whole collection stands alone; the rest is tried all at once too, so one by one it goes with the
server."""


def damages(*quick: str) -> list[object]:
    return [pytest.param(each, marks=() if each in quick else pytest.mark.server) for each in DAMAGES]


def found_and_mended(place: Place, planted: Planted) -> None:
    place.ingest()
    whole = verify(place.config, vectors=None)
    assert (whole.found, whole.notes, whole.code()) == ({}, [], 0)
    assert (whole.documents, whole.rows, whole.compared) == (len(TEXTS) + len(GONE), len(TEXTS), len(TEXTS))
    planted.plant(place)
    damaged = verify(place.config, vectors=None)
    assert planted.kind in damaged.found, damaged.examples
    assert damaged.code() == (3 if planted.kind == "contract" else 1)
    mended = verify(place.config, vectors=None, repair=True)
    if planted.mends == "never":
        assert mended.code()
        return
    if planted.mends == "by ingest":
        assert mended.code() == 1
        place.ingest()
    else:
        assert mended.code() == 0, mended.examples
    again = verify(place.config, vectors=None)
    assert (again.found, again.code()) == ({}, 0), again.examples
    assert place.found() == set(TEXTS)


@pytest.mark.parametrize("damage", damages(*WHOLE, "missing tombstone"))
def test_in_the_embedded_store(tmp_path: Path, damage: str) -> None:
    found_and_mended(place_at(tmp_path, str(tmp_path / "index.bartizan"), Embedded()), DAMAGES[damage])


@pytest.mark.parametrize("damage", damages("extra row"))
def test_in_a_milvus_lite_folder(tmp_path: Path, damage: str) -> None:
    found_and_mended(place_at(tmp_path, str(tmp_path / "index.db"), Milvus()), DAMAGES[damage])


@pytest.mark.server
@pytest.mark.parametrize("damage", WHOLE)
def test_on_a_milvus_server(milvus: MilvusServer, tmp_path: Path, damage: str) -> None:
    name = "verified_" + damage.replace(" ", "_")
    found_and_mended(place_at(tmp_path, milvus.uri, Milvus(), name), DAMAGES[damage])


@pytest.mark.server
def test_everything_at_once_on_a_milvus_server(milvus: MilvusServer, tmp_path: Path) -> None:
    """But a NaN, of which a server takes none."""
    everything_at_once(place_at(tmp_path, milvus.uri, Milvus(), "verified"), without="NaN vector")


def test_everything_at_once_in_the_embedded_store(tmp_path: Path) -> None:
    everything_at_once(place_at(tmp_path, str(tmp_path / "index.bartizan"), Embedded()))


def everything_at_once(place: Place, without: str = "") -> None:
    """All that concerns documents, and each is told apart."""
    place.ingest()
    planted = [each for name, each in DAMAGES.items() if name not in (*WHOLE, without)]
    planted.sort(key=lambda each: each.kind == "missing tombstone")  # last: a writer that ends strikes a new balance
    for each in planted:
        each.plant(place)
    tally = verify(place.config, vectors=None)
    assert {each.kind for each in planted} <= tally.found.keys(), tally.examples
    verify(place.config, vectors=None, repair=True)
    place.ingest()
    again = verify(place.config, vectors=None)
    assert again.found == {}, again.examples
    assert place.found() == set(TEXTS)


def test_the_stores_own_words_are_compared_too(tmp_path: Path) -> None:
    raw = Embedded()
    place = place_at(tmp_path, str(tmp_path / "index.bartizan"), raw, lexical=True)
    place.ingest(words=False)
    assert verify(place.config).found == {}
    raw._do(
        place,
        lambda number: [
            (f"DELETE FROM words_{number} WHERE row IN (SELECT row FROM rows_{number} WHERE id = 'd4')", ())
        ],
    )
    assert verify(place.config).found == {"words behind": 1}
    assert verify(place.config, repair=True).code() == 0
    assert verify(place.config).found == {}


def test_a_missing_tombstone_is_not_known_after_a_writer_that_was_cut_off(tmp_path: Path) -> None:
    """And one more delete is no damage: the balance is struck anew by every writer that ends in good order."""
    place = place_at(tmp_path, str(tmp_path / "index.bartizan"), Embedded())
    place.ingest()
    with place.store() as store:
        store.delete([Head(id="d0", version=2)])
        store.purge(2)
    assert verify(place.config).found == {"words behind": 1}, "the word index was passed by"


def test_looking_changes_nothing_and_needs_no_lease(tmp_path: Path) -> None:
    place = place_at(tmp_path, str(tmp_path / "index.bartizan"), Embedded())
    place.ingest()
    DAMAGES["extra row"].plant(place)
    with place.store() as writer:
        writer.claim()
        assert verify(place.config).found == {"extra row": 1}
        assert verify(place.config).found == {"extra row": 1}


def test_a_writer_that_goes_on_meanwhile_is_no_damage(tmp_path: Path) -> None:
    place = place_at(tmp_path, str(tmp_path / "index.bartizan"), Embedded(), lexical=True)
    place.ingest(words=False)
    stop, failed = Event(), list[BaseException]()

    def write() -> None:
        try:
            with place.store() as store:
                documents = store.get(list(TEXTS), vectors=True)
                version = 2
                while not stop.is_set():
                    rows = [row for document in documents.values() for row in document.rows]
                    store.upsert([replace(row, version=version) for row in rows])
                    version += 1
        except BaseException as error:  # noqa: BLE001  told by the test
            failed.append(error)

    writing = Thread(target=write)
    writing.start()
    try:
        for _ in range(5):
            assert verify(place.config, vectors=None).found == {}
    finally:
        stop.set()
        writing.join(30)
    assert failed == []


def test_a_collection_that_is_not_there_is_wrong_use(tmp_path: Path) -> None:
    place = place_at(tmp_path, str(tmp_path / "index.bartizan"), Embedded())
    with pytest.raises(WrongUse, match="ingest documents first"):
        verify(place.config)


def test_a_sample_of_the_vectors_is_compared(tmp_path: Path) -> None:
    place = place_at(tmp_path, str(tmp_path / "index.bartizan"), Embedded())
    place.ingest()
    assert [verify(place.config, vectors=count).compared for count in (0, 4, 100)] == [0, 4, len(TEXTS)]
