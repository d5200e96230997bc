"""Documents from a program: on every back-end the same, through the same fence, with the same reasons of refusal."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from bartizan_connector import Config, Documents, Retry, WrongUse
from bartizan_connector.config.towers import collection_of, open_encoders
from bartizan_connector.documents.outcome import Outcome, Refusal
from bartizan_connector.store.embedded import EmbeddedBackend
from bartizan_connector.store.filters import Compare
from bartizan_connector.stream.sources import open_source
from bartizan_connector.stream.work import run
from tests.exports import export_folder, tower_folder
from tests.servers.milvus import MilvusServer

TEXTS = [
    {"_id": "a", "title": "one", "text": "one tower", "year": 1},
    {"_id": "b", "text": "two towers", "year": 2},
    {"_id": "c", "text": "of the two", "year": 3},
]
BAD = [{"_id": "d"}, 5, {"text": "no id"}, {"_id": "e", "text": "x", "year": "1"}, {"_id": "f", "text": float("nan")}]
PLACES = ("memory:", "index.bartizan", pytest.param("index.db", marks=pytest.mark.server))


@pytest.fixture(params=PLACES)
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    place = str(request.param)
    return place if place == "memory:" else str(tmp_path / place)


def opened(uri: str, folder: Path, tower: Path | None = None) -> Documents:
    """With words on every back-end that keeps something."""
    tower = tower or export_folder("bert", "fp32")
    words = f', lexical = "{folder / "words"}"' if "://" in uri or uri.endswith(".db") else ", lexical = true"
    words = "" if uri == "memory:" else words
    seen = ', consistency = "Strong"' if "://" in uri else ""
    (folder / "bartizan.toml").write_text(
        f'collection = {{ name = "docs", fields = [{{ name = "year", type = "int" }}] }}\n'
        f'spaces.dense.document_tower = "{tower}"\nbackend = {{ uri = "{uri}"{words}{seen} }}\n',
        encoding="utf-8",
    )
    return Documents.open(folder / "bartizan.toml")


def ids(documents: Iterator[dict[str, object]]) -> list[object]:
    return sorted(str(document["_id"]) for document in documents)


def test_what_is_put_is_got_counted_scanned_found_and_removed(uri: str, tmp_path: Path) -> None:
    with opened(uri, tmp_path) as documents:
        assert documents.put(TEXTS) == Outcome(written=3)
        assert documents.put(reversed(TEXTS)) == Outcome(unchanged=3)
        assert documents.get(["c", "never", "a"]) == {"c": TEXTS[2] | {"title": ""}, "a": TEXTS[0]}
        assert (documents.count(), documents.count("year > 1"), documents.count(Compare("year", "==", 9))) == (3, 2, 0)
        assert ids(documents.scan("year < 3")) == ["a", "b"]
        assert len(documents.search("one tower")) == 3
        if uri != "memory:":
            assert documents.search("one tower", k=1)[0].id == "a", "by words and vectors together"
        legs = None if uri == "memory:" else ["lexical"]
        assert [hit.id for hit in documents.search("towers", legs=legs, filter="year == 2")] == ["b"]
        assert documents.put([TEXTS[1] | {"text": "three"}]) == Outcome(written=1)
        assert [hit.id for hit in documents.search("three", legs=legs, k=1)] == ["b"]
        assert documents.delete(["a", 7]) == Outcome(deleted=2)
        assert ids(documents.scan()) == ["b", "c"]
        assert "a" not in [hit.id for hit in documents.search("one tower")]
        assert documents.prune(["c"]) == Outcome(deleted=1)
        documents.drop()
        with pytest.raises(WrongUse, match="no collection 'docs'"):
            documents.count()
        assert documents.put(TEXTS[:1]) == Outcome(written=1)
        assert [hit.id for hit in documents.search("towers", legs=legs)] == ["a"], "words went with the rest"


@pytest.mark.server
def test_a_server_gives_the_same(milvus: MilvusServer, tmp_path: Path) -> None:
    test_what_is_put_is_got_counted_scanned_found_and_removed(milvus.uri, tmp_path)
    with opened(milvus.uri, tmp_path) as documents:
        documents.drop()


def test_the_rest_is_written_and_each_refusal_has_the_reason_that_a_file_gets(uri: str, tmp_path: Path) -> None:
    with opened(uri, tmp_path) as documents:
        outcome = documents.put([TEXTS[0], *BAD, TEXTS[1]])  # type: ignore[list-item]
        assert (outcome.written, ids(documents.scan())) == (2, ["a", "b"])
    (tmp_path / "docs.jsonl").write_text("\n".join(map(json.dumps, BAD)), encoding="utf-8")
    environment = {
        "BARTIZAN__SOURCE__PATH": str(tmp_path / "docs.jsonl"),
    }
    config = Config.load(tmp_path / "bartizan.toml", environment)
    config = config.model_copy(update={"backend": config.backend.model_copy(update={"lexical": None})})
    with closing(config.backend.open()) as backend, closing(open_source(config)) as source:
        run(source, open_encoders(config, "document"), backend, collection_of(config))
    letters = [json.loads(line) for line in (tmp_path / "docs.jsonl.dead.jsonl").read_text().splitlines()]
    assert outcome.refused == tuple(Refusal(number=i, reason=each["reason"]) for i, each in enumerate(letters, 1))


def test_a_bare_path_and_a_tower_of_either_kind_are_enough(tmp_path: Path) -> None:
    found = []
    for number, tower in enumerate((export_folder("bert", "fp32"), tower_folder("bert"))):
        with Documents.at(tmp_path / f"{number}.bartizan", tower, fields={"year": "int"}) as documents:
            documents.put(iter(TEXTS))
            found.append([(hit.id, round(hit.score, 4)) for hit in documents.search("two")])
    assert found[0] == found[1]
    assert len(found[0]) == 3


def test_it_is_awaited_too(uri: str, tmp_path: Path) -> None:
    async def all_of_it() -> None:
        async with opened(uri, tmp_path) as documents:
            assert await documents.aput(TEXTS) == Outcome(written=3)
            assert list(await documents.aget(["a"])) == ["a"]
            assert await documents.acount("year > 1") == 2
            assert sorted([str(document["_id"]) async for document in documents.ascan()]) == ["a", "b", "c"]
            asked = ("one tower", "of the two")
            answers = await asyncio.gather(*(documents.asearch(text) for text in asked))
            assert [answer.results for answer in answers] == [documents.search(text).results for text in asked]
            assert answers[0].results != answers[1].results
            assert await documents.adelete(["a"]) == Outcome(deleted=1)
            assert await documents.aprune(["b"]) == Outcome(deleted=1)
            await documents.adrop()
            with pytest.raises(WrongUse):
                await documents.acount()

    asyncio.run(all_of_it())


def test_what_is_given_now_is_newer_whoever_gave_the_former(tmp_path: Path) -> None:
    """But a version of the record's own decides alone."""
    uri = str(tmp_path / "index.bartizan")
    with opened(uri, tmp_path) as one, opened(uri, tmp_path) as other:
        for number in range(4):
            (one, other)[number % 2].put([{"_id": "a", "text": f"state {number}", "year": 0}])
        assert one.get(["a"])["a"]["text"] == "state 3"
        assert other.delete(["a"]) == Outcome(deleted=1)
        assert one.put([TEXTS[0]]) == Outcome(written=1)
        assert one.put([{"_id": "v", "text": "five", "year": 0, "_version": 5}]) == Outcome(written=1)
        assert one.put([{"_id": "v", "text": "four", "year": 0, "_version": 4}]) == Outcome(stale=1)
        assert one.prune(["a"]) == Outcome(deleted=1)
        assert one.put([{"_id": "v", "text": "six", "year": 0, "_version": 6}]) == Outcome(stale=1), "6 is the delete's"
        assert one.put([{"_id": "v", "text": "seven", "year": 0, "_version": 7}]) == Outcome(written=1)
        assert one.put([TEXTS[0], TEXTS[0] | {"year": 8}]) == Outcome(written=1, stale=1)
        assert one.get(["a"])["a"]["year"] == 8, "of one call the last counts"


def test_others_may_write_between_two_calls_and_a_store_in_hand_keeps_them_out(tmp_path: Path) -> None:
    uri = str(tmp_path / "index.bartizan")
    with opened(uri, tmp_path) as documents:
        documents.put(TEXTS)
        backend = EmbeddedBackend(uri)
        store = backend.open(documents.collection)
        store.touch([])
        store.delete(list(store.heads(["a"]).values()))
        with pytest.raises(Retry, match="is being written by process"):
            documents.store.purge(1)
        backend.close()
        assert documents.put(TEXTS[1:]) == Outcome(unchanged=2)


def test_threads_share_it(tmp_path: Path) -> None:
    with opened(str(tmp_path / "index.bartizan"), tmp_path) as documents:
        documents.put(TEXTS)
        failures: list[BaseException] = []

        def work(number: int) -> None:
            try:
                for step in range(5):
                    documents.put([{"_id": f"t{number}-{step}", "text": "tower", "year": step}])
                    assert len(documents.search("tower", k=3)) == 3
            except BaseException as error:  # noqa: BLE001  told below
                failures.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
        assert documents.count() == 18


@pytest.mark.parametrize("given", [{"_id": "a", "text": "x"}, "text", b"{}", 5, None])
def test_what_is_not_several_is_refused_before_anything_is_opened(given: object, tmp_path: Path) -> None:
    with opened(str(tmp_path / "index.bartizan"), tmp_path) as documents:
        for call in (documents.put, documents.delete, documents.get, documents.prune):
            with pytest.raises(WrongUse, match="give a list"):
                call(given)  # type: ignore[operator]
    assert not (tmp_path / "index.bartizan").exists()


def test_values_of_numpy_are_numbers_and_others_are_refused(tmp_path: Path) -> None:
    with opened("memory:", tmp_path) as documents:
        good = {"_id": "a", "text": "x", "year": np.int64(3)}
        assert documents.put([good]).written == 1
        assert documents.get(["a"])["a"]["year"] == 3
        (refusal,) = documents.put([{"_id": "b", "text": "x", "year": object()}]).refused
        assert refusal == Refusal(
            number=0, reason="not a record: object is no JSON value; give a string, a number or a bool"
        )


def test_an_error_of_the_callers_own_stops_the_stream_and_keeps_what_was_committed(tmp_path: Path) -> None:
    def stream() -> Iterator[dict[str, object]]:
        for number in range(600):
            yield {"_id": f"d{number}", "text": "tower", "year": number}
        raise ZeroDivisionError

    with opened(str(tmp_path / "index.bartizan"), tmp_path) as documents:
        with pytest.raises(ZeroDivisionError):
            documents.put(stream())
        assert documents.count() % 256 == 0
        assert documents.put(TEXTS).written == 3


def test_closed_is_closed(tmp_path: Path) -> None:
    documents = opened("memory:", tmp_path)
    documents.put(TEXTS)
    assert documents.count() == 3
    documents.close()
    documents.close()
    for call in (lambda: documents.put(TEXTS), documents.count, lambda: documents.search("x"), documents.drop):
        with pytest.raises(WrongUse, match="are closed"):
            call()
