"""A first fill by files on the real Milvus server: the same as a plain ingest, whole or not there, killed anywhere."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from pymilvus import MilvusClient

from bartizan_connector.__main__ import main
from bartizan_connector.base.errors import Stop, WrongUse
from bartizan_connector.config.settings import ChunkSettings
from bartizan_connector.search.words.index import WordIndex
from bartizan_connector.store.collection import Collection, Document, Row
from bartizan_connector.store.milvus import MilvusBackend, bulk
from bartizan_connector.store.milvus.ledger import LEASE_ID
from bartizan_connector.stream.chunks import Cutter
from bartizan_triton.export import export_tower
from tests.connector.stream.filling import ENCODER, collection_named, filled, ingested
from tests.connector.stream.reading import WordReading
from tests.connector.stream.streams import ListSource, message
from tests.encoders import tiny
from tests.servers.milvus import MilvusServer

pytestmark = pytest.mark.server

ROOT = Path(__file__).parents[4]
LOADING = "bartizan_connector.store.milvus.bulk:MilvusLoading"
DOCUMENTS = 420
"""Whose rows are more than 1,024, so that the server builds an index."""
HOSTILE = ("quote \" and ' quote", "back\\slash\\", "nul\x00", "é 😀 \u2028 漢字", "a#1", '" or pk != "', "\x01\x7f")


class Patient:
    """An overseer who never ends anything."""

    def note(self, physical: str) -> None: ...

    def forget(self, physical: str) -> None: ...

    def heed(self) -> None: ...


@pytest.fixture
def backend(milvus: MilvusServer) -> Iterator[MilvusBackend]:
    backend = MilvusBackend(milvus.uri, consistency="Strong")
    yield backend
    backend.close()


@pytest.fixture
def client(milvus: MilvusServer) -> Iterator[MilvusClient]:
    client = MilvusClient(milvus.uri, timeout=30)
    yield client
    client.close()


def corpus_in(folder: Path, lines: Sequence[dict[str, Any] | str]) -> Path:
    corpus = folder / "corpus.jsonl"
    corpus.write_text("".join((each if isinstance(each, str) else json.dumps(each)) + "\n" for each in lines), "utf-8")
    return corpus


def lines(count: int) -> list[dict[str, Any] | str]:
    """Documents of one and of several chunks, replaced, shortened, deleted, hostile, and lines that are none."""
    some: list[dict[str, Any] | str] = [
        {
            "_id": f"d{n}",
            "title": f"no {n}",
            "text": " ".join(f"word{n % 7} and{k}." for k in range(1 + 12 * (n % 3))),
            "year": n,
            "price": n / 4,
            "fresh": n % 2 == 0,
        }
        for n in range(count)
    ]
    some += [{"_id": id, "text": f"{id} of a text", "title": id} for id in HOSTILE]
    some += [{"_id": "d2", "text": "short now"}, {"_id": "d3", "_deleted": True}, {"_id": "never", "_deleted": True}]
    return [*some, "{", {"_id": f"{LEASE_ID}?", "text": "the ledger's own"}, {"_id": "d4", "year": "no number"}]


def cutter() -> Cutter:
    return Cutter({"dense": WordReading()}, ChunkSettings(tokens=12))


def everything(backend: MilvusBackend, collection: Collection) -> tuple[Any, ...]:
    """All that a collection holds: heads with their reach, rows with their vectors, its contract and its balance."""
    store = backend.open(collection, create=False)
    audit = store.audit()
    standings = {
        each.id: (each.head, each.reach, tuple(map(plain, each.rows))) for p in audit.standings() for each in p
    }
    strays, scanned = list(audit.strays()), {document.id: shown(document) for document in store.scan(vectors=True)}
    now, left = audit.now(), audit.balance()
    store.close()
    assert left == now, "what the last writer left is not what is there"
    return standings, strays, scanned, now, store.collection.model_copy(update={"name": "any"})


def plain(row: Row) -> tuple[Any, ...]:
    return row.id, row.chunk, dict(row.fields), np.asarray(row.vectors["dense"].value).tobytes()


def shown(document: Document) -> tuple[Any, ...]:
    return document.head, tuple(map(plain, document.rows))


def left_over(client: MilvusClient, name: str) -> list[str]:
    """The collections that were made for it; two of them, rows and ledger, when all is well."""
    return sorted(each for each in client.list_collections() if each.startswith(f"{name}__"))


def test_what_is_filled_by_files_is_what_a_plain_ingest_fills(
    backend: MilvusBackend, client: MilvusClient, tmp_path: Path
) -> None:
    corpus, letters = corpus_in(tmp_path, lines(DOCUMENTS)), tmp_path / "corpus.jsonl.dead.jsonl"
    usual, loaded = collection_named("usual"), collection_named("loaded")
    by_hand, dead = ingested(backend, usual, corpus, cutter=cutter()), letters.read_text("utf-8")
    words, usual_words = WordIndex(tmp_path / "words", "loaded"), WordIndex(tmp_path / "usual", "usual")
    report = filled(backend, loaded, tmp_path, corpus, cutter=cutter(), words=words)
    counts = ("read", "written", "unchanged", "stale", "deleted", "dead", "truncated")
    assert [getattr(report, name) for name in counts] == [getattr(by_hand, name) for name in counts]
    assert report.dead == 3
    assert _reasons(letters.read_text("utf-8")) == _reasons(dead)
    assert everything(backend, loaded) == everything(backend, usual)

    query = ENCODER.encode(["漢字 of a text", "back\\slash\\ of a text"], "query")
    one, other = backend.open(usual, create=False), backend.open(loaded, create=False)
    for here, there in zip(other.search("dense", query, 20), one.search("dense", query, 20), strict=True):
        assert [hit.score for hit in here] == pytest.approx([hit.score for hit in there], abs=1e-5)
        assert {(hit.id, hit.chunk) for hit in here[:3]} == {(hit.id, hit.chunk) for hit in there[:3]}
    (index,) = other.indexes()
    assert index.rows > 1024
    assert (index.kind, index.state, index.indexed) == ("hnsw", "finished", index.rows)
    one.close()
    other.close()
    ingested(backend, usual, corpus, cutter=cutter(), words=usual_words)  # fills the words
    ids = [f"d{n}" for n in range(DOCUMENTS)]
    assert words.hashes(ids) == usual_words.hashes(ids) != {}
    assert len(left_over(client, "loaded")) == 2
    assert [path.name for path in tmp_path.glob("bartizan-bulk-*")] == []

    again = ingested(backend, loaded, corpus, cutter=cutter(), words=words)
    assert (again.written, again.deleted, again.dead) == (0, 0, 3)
    later = corpus_in(
        tmp_path, [{"_id": "d5", "text": "new"}, {"_id": "d6", "_deleted": True}, {"_id": "n", "text": "n"}]
    )
    for collection in (usual, loaded):
        report = ingested(backend, collection, later, cutter=cutter())
        assert (report.written, report.deleted) == (2, 1)
    assert everything(backend, loaded) == everything(backend, usual)
    words.close()
    usual_words.close()
    for collection in (usual, loaded):
        backend.drop(collection.name)
    assert left_over(client, "loaded") == []


def _reasons(letters: str) -> list[str]:
    return [json.loads(line)["reason"] for line in letters.splitlines()]


@pytest.mark.parametrize(
    ("where", "kept", "is_there"),
    [
        ("<4 bartizan_connector.stream.stage:Staged.upsert", 300, False),
        (f"<1 {LOADING}._import", 0, False),  # the trial
        (f">2 {LOADING}._ordered", 600, False),  # the server is told to import, and nobody waits for it
        (f"<1 {LOADING}.give_name", 600, False),
        (f">1 {LOADING}.give_name", 600, True),
    ],
)
def test_a_fill_that_is_killed_anywhere_is_made_whole_by_the_next_one(
    backend: MilvusBackend,
    client: MilvusClient,
    milvus: MilvusServer,
    tmp_path: Path,
    where: str,
    kept: int,
    is_there: bool,
) -> None:
    corpus = corpus_in(tmp_path, [{"_id": f"d{n}", "text": f"word{n % 7} and {n}"} for n in range(600)])
    collection = collection_named("killed")
    process = subprocess.run(
        [sys.executable, "-m", "tests.connector.stream.filling", milvus.uri, tmp_path, corpus, "killed", where],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(str(ROOT / root) for root in ("connector", "."))},
        check=False,
        timeout=120,
    )
    assert process.returncode == -signal.SIGKILL
    assert (collection.name in backend.aliases()) == is_there, "half of it is visible"
    report = filled(backend, collection, tmp_path, corpus)
    assert (report.read, report.unchanged, report.written) == (600, kept, 600 - kept)
    standings, strays, *_ = everything(backend, collection)
    assert {id: len(rows) for id, (_, _, rows) in standings.items()} == {f"d{n}": 1 for n in range(600)}
    assert strays == []
    assert len(left_over(client, "killed")) == 2, "what the first run made is still there"
    assert list(tmp_path.glob("bartizan-bulk-*")) == []
    backend.drop(collection.name)
    assert left_over(client, "killed") == []


def test_a_collection_that_is_there_is_refused_and_stays_as_it_is(
    backend: MilvusBackend, client: MilvusClient, tmp_path: Path
) -> None:
    corpus, collection = corpus_in(tmp_path, [{"_id": "a", "text": "a"}]), collection_named("there")
    ingested(backend, collection, corpus)
    before, made = everything(backend, collection), left_over(client, "there")
    with pytest.raises(
        WrongUse, match="'there' is at here already, and --bulk is for the first fill only: leave it out"
    ):
        filled(backend, collection, tmp_path, corpus)
    assert everything(backend, collection) == before
    assert left_over(client, "there") == made
    assert list(tmp_path.glob("bartizan-bulk-*")) == []


def test_what_has_got_a_name_by_now_is_not_dropped(backend: MilvusBackend, tmp_path: Path) -> None:
    corpus, collection = corpus_in(tmp_path, [{"_id": "a", "text": "a"}]), collection_named("named")
    ingested(backend, collection, corpus)
    before = everything(backend, collection)
    assert backend.loading(collection).drop(backend.aliases()[collection.name], Patient()) is False
    assert everything(backend, collection) == before


def test_a_folder_that_the_server_does_not_see_is_told_before_anything_is_encoded(
    backend: MilvusBackend, client: MilvusClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here it sees every folder, so it is told of one that is mounted elsewhere for it."""
    corpus, collection = corpus_in(tmp_path, [{"_id": "a", "text": "a"}]), collection_named("elsewhere")
    ordered = bulk.MilvusLoading._ordered
    monkeypatch.setattr(
        bulk.MilvusLoading, "_ordered", lambda self, name, path: ordered(self, name, Path(f"/elsewhere{path}"))
    )
    source = ListSource([message("a", "a", 1)])
    with pytest.raises(Stop, match=r"could not import .*no such file.*leave --bulk out"):
        filled(backend, collection, tmp_path, corpus, source=source)
    assert source.given is None, "it was read before the folder was tried"
    assert list(tmp_path.glob("bartizan-bulk-*")) == [], "the trial was not seen to be gone"
    assert left_over(client, "elsewhere") == []
    assert collection.name not in backend.aliases()


def test_a_server_that_imports_something_else_is_found_out_and_nobody_sees_it(
    backend: MilvusBackend, client: MilvusClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus, collection = (
        corpus_in(tmp_path, [{"_id": f"d{n}", "text": f"{n}"} for n in range(5)]),
        collection_named("odd"),
    )
    monkeypatch.setattr(bulk, "_SEEN_SECONDS", 3.0)
    ordered = bulk.MilvusLoading._ordered

    def twice(self: bulk.MilvusLoading, name: str, path: Path) -> int:
        if path.name.startswith("rows"):
            self._await(ordered(self, name, path), path, ["Completed"], Patient())
        return ordered(self, name, path)

    with monkeypatch.context() as patch:
        patch.setattr(bulk.MilvusLoading, "_ordered", twice)
        with pytest.raises(Stop, match=r"did not import what it was given: .*rows=10.* of .*rows=5"):
            filled(backend, collection, tmp_path, corpus)
    assert left_over(client, "odd") == []
    assert filled(backend, collection, tmp_path, corpus).unchanged == 5
    assert backend.open(collection, create=False).count() == 5


@pytest.mark.parametrize("moment", ["import", "index"])
def test_who_is_told_to_stop_while_the_server_is_at_it_waits_no_longer(
    backend: MilvusBackend, client: MilvusClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    corpus = corpus_in(tmp_path, [{"_id": f"d{n}", "text": f"{n}"} for n in range(5)])
    collection, stop, told = collection_named("stopped"), Event(), []
    ordered = bulk.MilvusLoading._ordered

    def tell() -> None:
        told.append(time.monotonic())
        stop.set()

    def telling(self: bulk.MilvusLoading, name: str, path: Path) -> int:
        task = ordered(self, name, path)
        if path.name.startswith("rows") and moment == "import":
            tell()
        return task

    with monkeypatch.context() as patch:
        patch.setattr(bulk.MilvusLoading, "_ordered", telling)
        more: dict[str, Any] = {"on_rows": lambda *counts: tell()} if moment == "index" else {}
        with pytest.raises(Stop, match="told to stop before all was loaded") as ended:
            filled(backend, collection, tmp_path, corpus, stop=stop, **more)
    assert time.monotonic() - told[0] < 30
    assert collection.name not in backend.aliases()
    assert ("stopped__" in str(ended.value)) == bool(left_over(client, "stopped"))
    assert filled(backend, collection, tmp_path, corpus).unchanged == 5
    assert len(left_over(client, "stopped")) == 2
    backend.drop(collection.name)


def test_the_command_fills_a_collection_that_is_searched_and_ingested_into_at_once(
    milvus: MilvusServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export_tower(tiny.saved(tmp_path / "tower"), tmp_path / "export")
    corpus_in(tmp_path, [{"_id": f"d{n}", "text": f"one of {n} towers"} for n in range(30)])
    config = tmp_path / "bartizan.toml"
    config.write_text(
        f"""
        [collection]
        name = "commanded"
        [spaces.dense]
        document_tower = "export"
        [backend]
        uri = "{milvus.uri}"
        lexical = "words"
        [source]
        path = "corpus.jsonl"
        """,
        encoding="utf-8",
    )
    ended = []
    for options in (["--bulk", str(tmp_path), "--json"], ["--json"], ["--bulk", str(tmp_path)]):
        with pytest.raises(SystemExit) as end:
            main(["ingest", str(config), *options])
        ended.append((end.value.code or 0, capsys.readouterr()))
    (filled_code, first), (again_code, second), (refused_code, third) = ended
    assert (filled_code, json.loads(first.out)["written"]) == (0, 30)
    assert (again_code, json.loads(second.out)["unchanged"]) == (0, 30)
    assert refused_code == 2
    assert "is for the first fill only" in third.err
    with pytest.raises(SystemExit):
        main(["search", "7 towers", "--config", str(config), "--json"])
    assert '"d7"' in capsys.readouterr().out
