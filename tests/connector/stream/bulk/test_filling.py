"""A first fill by files: what is refused, what a killed run leaves and the next one finds; on a back-end in memory."""

import json
from inspect import getattr_static
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from bartizan_connector.base.errors import Retry, Stop, WrongUse
from bartizan_connector.search.words.index import WordIndex
from bartizan_connector.store.backend import Renewed, Whole
from bartizan_connector.store.embedded import EmbeddedBackend
from bartizan_connector.store.embedded.store import EmbeddedStore
from bartizan_connector.store.memory import MemoryBackend
from bartizan_connector.store.milvus import MilvusBackend
from bartizan_connector.stream import renewing
from bartizan_connector.stream.bulk import loading_of
from bartizan_connector.stream.stage import Stage
from bartizan_connector.stream.staged import Staged
from tests.connector.stream.bulk.importing import COLLECTION, OURS, InMemory, Killed, Loaded, everything, killed_at
from tests.connector.stream.filling import ENCODER, filled, ingested
from tests.connector.stream.streams import ListSource, collection_for, message


def test_it_holds_what_a_plain_ingest_stores(backend: Loaded, corpus: Path, folder: Path) -> None:
    with corpus.open("a") as lines:
        lines.write(json.dumps({"_id": f"{OURS}x", "text": "x"}) + "\n")
    words = WordIndex(folder.parent / "words", "docs")
    report = filled(backend, COLLECTION, folder, corpus, words=words)
    assert (report.read, report.written, report.dead) == (254, 251, 2)
    assert report.stages["load"] > 0
    usual = MemoryBackend()
    ingested(usual, COLLECTION, corpus)
    heads, rows = everything(usual)
    del heads[f"{OURS}x"], rows[f"{OURS}x"]  # a memory has nothing against it
    assert everything(backend) == (heads, rows)
    assert words.hashes(["d1", "d2", "d3"]) == {id: everything(backend)[0][id].hash for id in ("d1", "d3")}
    assert list(folder.iterdir()) == []
    words.close()


@pytest.mark.parametrize("step", ["try", "load", "name", "named"])
def test_after_a_kill_at_any_step_the_next_run_ends_right(
    backend: Loaded, corpus: Path, folder: Path, step: str
) -> None:
    backend.fails[step] = Killed()
    with pytest.raises(Killed):
        filled(backend, COLLECTION, folder, corpus)
    assert (COLLECTION.name in backend.aliases()) == (step == "named")
    report = filled(backend, COLLECTION, folder, corpus)
    assert report.written == (251 if step == "try" else 0)
    heads, rows = everything(backend)
    assert (len(heads), len(rows)) == (250, 249)
    assert list(backend.collections()) == list(backend.aliases().values()), "something without a name is left"
    assert list(folder.iterdir()) == []


def test_what_was_made_for_it_and_has_a_name_by_now_is_not_dropped(backend: Loaded, corpus: Path, folder: Path) -> None:
    killed_at("named", backend, folder, corpus)
    former = backend.aliases()[COLLECTION.name]
    other = backend.open(COLLECTION, name="docs_new")
    backend.point("docs_former", former)
    backend.point(COLLECTION.name, other.physical_name)
    with pytest.raises(WrongUse, match="is for the first fill only"):
        filled(backend, COLLECTION, folder, corpus)
    assert set(backend.collections()) == {former, other.physical_name}


def test_a_fill_that_is_refused_drops_nothing_that_an_earlier_one_made(
    backend: Loaded, corpus: Path, folder: Path
) -> None:
    killed_at("named", backend, folder, corpus)
    former = backend.aliases()[COLLECTION.name]
    other = backend.open(COLLECTION, name="docs_new")
    backend.point(COLLECTION.name, other.physical_name)
    with pytest.raises(WrongUse, match="is for the first fill only"):
        filled(backend, COLLECTION, folder, corpus)
    assert former in backend.collections()
    assert len(list(folder.iterdir())) == 1, "nobody would know any more what it made"


def test_a_collection_that_is_there_is_refused_before_anything_is_read(
    backend: Loaded, corpus: Path, folder: Path
) -> None:
    ingested(backend, COLLECTION, corpus)
    before = everything(backend)
    source = ListSource([message("a", "a", 1)])
    with pytest.raises(
        WrongUse, match="'docs' is at here already, and --bulk is for the first fill only: leave it out"
    ):
        filled(backend, COLLECTION, folder, corpus, source=source)
    assert (source.given, everything(backend), list(folder.iterdir())) == (None, before, [])


def test_what_another_made_meanwhile_stays_and_what_was_loaded_goes(
    backend: Loaded, corpus: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = InMemory.load

    def overtaken(self: InMemory, *given: Any) -> str:
        physical = load(self, *given)
        backend.open(COLLECTION)
        return physical

    monkeypatch.setattr(InMemory, "load", overtaken)
    with pytest.raises(Stop, match="another has made collection 'docs' meanwhile"):
        filled(backend, COLLECTION, folder, corpus)
    assert everything(backend) == ({}, {})
    assert len(backend.collections()) == 1


def test_a_server_that_cannot_load_is_told_before_anything_is_read(backend: Loaded, corpus: Path, folder: Path) -> None:
    backend.fails["try"] = Stop("it does not see that folder")
    source = ListSource([message("a", "a", 1)])
    with pytest.raises(Stop, match="does not see"):
        filled(backend, COLLECTION, folder, corpus, source=source)
    assert source.given is None
    assert (dict(backend.aliases()), list(folder.iterdir())) == ({}, [])


def test_a_run_that_is_told_to_stop_shows_nothing_and_the_next_goes_on(
    backend: Loaded, corpus: Path, folder: Path
) -> None:
    stop = Event()
    with pytest.raises(Stop, match="told to stop before all was encoded"):
        filled(backend, COLLECTION, folder, corpus, stop=stop, in_flight=1, on_batch=lambda share: stop.set())
    backend.fails["try"] = Stop("the folder is not mounted now")
    with pytest.raises(Stop, match="not mounted"):
        filled(backend, COLLECTION, folder, corpus)
    assert backend.steps == ["try", "try"]
    assert dict(backend.collections()) == {}
    assert 0 < filled(backend, COLLECTION, folder, corpus).unchanged < 250
    assert len(everything(backend)[1]) == 249


def test_what_was_encoded_of_a_stream_is_not_taken_for_another(backend: Loaded, corpus: Path, folder: Path) -> None:
    backend.fails["load"] = Killed()
    with pytest.raises(Killed):
        filled(backend, COLLECTION, folder, corpus, identity=None, source=ListSource([message("old", "old", 1)]))
    filled(backend, COLLECTION, folder, corpus, identity=None, source=ListSource([message("new", "new", 1)]))
    assert list(everything(backend)[0]) == ["new"]


def test_two_at_a_time_are_told_of_each_other(backend: Loaded, corpus: Path, folder: Path) -> None:
    stage = Stage(folder, COLLECTION, "here", str(corpus))
    with stage.opened(lambda ids: None), pytest.raises(Retry, match="is being written by"):
        filled(backend, COLLECTION, folder, corpus)
    assert filled(backend, COLLECTION, folder, corpus).written == 251


def test_back_ends_that_import_nothing_are_refused(tmp_path: Path) -> None:
    for backend in (MemoryBackend(), EmbeddedBackend(tmp_path / "index.bartizan")):
        with pytest.raises(WrongUse, match="--bulk is for a Milvus server"):
            loading_of(backend, COLLECTION, tmp_path)
    lite = MilvusBackend(str(tmp_path / "index.db"))
    with pytest.raises(WrongUse, match="is a Milvus Lite folder: leave --bulk out"):
        loading_of(lite, COLLECTION, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_sparse_legs_are_refused_before_the_server_is_asked(tmp_path: Path) -> None:
    leg = collection_for(ENCODER.spec).legs[0].model_copy(update={"kind": "sparse"})
    with pytest.raises(WrongUse, match="dense is a sparse leg"):
        loading_of(MilvusBackend("http://127.0.0.1:9"), COLLECTION.model_copy(update={"legs": (leg,)}), tmp_path)


def test_a_folder_that_is_not_there_is_told(backend: Loaded, corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match=r"there is no folder .*nowhere"):
        filled(backend, COLLECTION, tmp_path / "nowhere", corpus)


@pytest.fixture
def renewed_often(monkeypatch: pytest.MonkeyPatch) -> None:
    for seconds in ("_FIRST_SECONDS", "_LEAST_SECONDS"):
        monkeypatch.setattr(renewing, seconds, 0.01)


def test_it_is_heard_of_while_it_loads(
    backend: Loaded, corpus: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, renewed_often: None
) -> None:
    load, heard = InMemory.load, Event()

    def renew(self: EmbeddedStore) -> float:
        heard.set()
        return 0.01

    def long(self: InMemory, *given: Any) -> str:
        heard.clear()
        assert heard.wait(5), "silent, so that another takes the stage for left"
        return load(self, *given)

    monkeypatch.setattr(EmbeddedStore, "renew", renew)
    monkeypatch.setattr(InMemory, "load", long)
    assert filled(backend, COLLECTION, folder, corpus).written == 251


def test_who_was_succeeded_names_nothing_and_leaves_the_files_of_the_other(
    backend: Loaded, corpus: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, renewed_often: None
) -> None:
    load, is_over, heard = InMemory.load, Event(), Event()

    def renew(self: EmbeddedStore) -> float:
        if is_over.is_set():
            heard.set()
            raise Stop("is written by another now")
        return 0.01

    def long(self: InMemory, *given: Any) -> str:
        physical = load(self, *given)
        is_over.set()
        assert heard.wait(5)
        return physical

    monkeypatch.setattr(EmbeddedStore, "renew", renew)
    monkeypatch.setattr(InMemory, "load", long)
    with pytest.raises(Stop, match="written by another now"):
        filled(backend, COLLECTION, folder, corpus)
    assert (dict(backend.aliases()), dict(backend.collections())) == ({}, {})
    assert [path.name for path in folder.rglob("*.parquet")] == ["rows-0.parquet"]


def test_a_stage_tells_what_it_is_to_every_python() -> None:
    for wanted, name in ((Renewed, "renew"), (Whole, "writes_whole")):
        assert getattr_static(Staged, name), wanted  # as isinstance looks from 3.12 on
