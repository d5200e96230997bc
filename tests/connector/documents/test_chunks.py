"""Long documents from a program, on every back-end: given back whole, found by passage, replaced and removed whole."""

from pathlib import Path

import pytest

from bartizan_connector import Documents
from bartizan_connector.documents.outcome import Outcome
from tests.exports import export_folder
from tests.servers.milvus import MilvusServer

LONG = "A tower stands. " * 20 + "\n\nThe moat is deep,  and wide.\t" + "Stones lie. " * 15 + "Grüße 漢字。 The end.\n"
OTHER = "Nothing of the kind is told. " * 30
PLACES = ("memory:", "index.bartizan", pytest.param("index.db", marks=pytest.mark.server))


@pytest.fixture(params=PLACES)
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    place = str(request.param)
    return place if place == "memory:" else str(tmp_path / place)


def opened(
    uri: str, folder: Path, chunks: str | None = "{ tokens = 20, overlap = 4 }", of_document: str = "max"
) -> Documents:
    words = {True: "true", False: f'"{folder / "words"}"'}[uri.endswith(".bartizan")]
    lexical = "" if uri == "memory:" else f", lexical = {words}"
    seen = ', consistency = "Strong"' if "://" in uri else ""
    (folder / "bartizan.toml").write_text(
        f'collection = {{ name = "long", fields = [{{ name = "year", type = "int", default = 0 }}] }}\n'
        f'spaces.dense.document_tower = "{export_folder("bert", "fp32")}"\n'
        f'backend = {{ uri = "{uri}"{lexical}{seen} }}\nsearch.of_document = "{of_document}"\n'
        + (f"chunks = {chunks}\n" if chunks else ""),
        encoding="utf-8",
    )
    return Documents.open(folder / "bartizan.toml")


def rows(documents: Documents, id: str) -> int:
    found = documents.store.get([id])
    return len(found[id].rows) if id in found else 0


def test_a_long_document_is_given_back_whole_and_found_by_its_passages(uri: str, tmp_path: Path) -> None:
    with opened(uri, tmp_path) as documents:
        given = [
            {"_id": "long", "title": "The tower", "text": LONG, "year": 1},
            {"_id": "short", "title": "", "text": "a moat", "year": 2},
            {"_id": "other", "title": "Other", "text": OTHER, "year": 3},
        ]
        assert documents.put(given) == Outcome(written=3), "and nothing was truncated"
        assert rows(documents, "long") > 8
        assert rows(documents, "short") == 1
        assert documents.get(["long", "short", "other"]) == {str(each["_id"]): each for each in given}
        assert sorted(documents.scan(), key=lambda each: str(each["_id"])) == sorted(
            given, key=lambda each: each["_id"]
        )
        assert documents.put(given) == Outcome(unchanged=3)
        assert (documents.count(), documents.count("year > 1"), documents.count("chunk > 0")) == (3, 2, 2)
        assert documents.count(f"text == {'a moat'!r}") == 1

        for k in (1, 2, 3):
            answer = documents.search("a tower stands", k=k)
            assert len({hit.id for hit in answer}) == len(answer) == k, "documents, not chunks"
            for hit in answer:
                assert str(hit.fields["text"]) in {"long": LONG, "short": "a moat", "other": OTHER}[hit.id]
        assert len(documents.search("a tower stands", k=3, filter="year != 2")) == 2
        if uri != "memory:":
            (best,) = documents.search("stones lie", k=1, legs=["lexical"])
            assert best.id == "long"
            assert "Stones lie." in str(best.fields["text"])
            assert best.chunk == best.legs["lexical"].chunk > 0
            assert len(documents.search("the moat is", k=3, legs=["lexical", "dense"])) == 3

        assert documents.put([given[0] | {"text": "Now it is short."}]) == Outcome(written=1)
        assert rows(documents, "long") == 1
        assert documents.get(["long"])["long"]["text"] == "Now it is short."
        if uri != "memory:":
            assert not documents.search("stones", legs=["lexical"]).results, "no chunk is left over in the words"
        assert documents.put([given[0]]) == Outcome(written=1)
        assert documents.delete(["long"]) == Outcome(deleted=1)
        assert rows(documents, "long") == 0
        assert documents.store.count() == rows(documents, "short") + rows(documents, "other")


@pytest.mark.server
def test_a_server_gives_the_same(milvus: MilvusServer, tmp_path: Path) -> None:
    test_a_long_document_is_given_back_whole_and_found_by_its_passages(milvus.uri, tmp_path)
    with opened(milvus.uri, tmp_path) as documents:
        documents.drop()


def test_other_settings_cut_anew_in_place_and_only_the_same_write_nothing(tmp_path: Path) -> None:
    uri = str(tmp_path / "index.bartizan")
    given = [{"_id": "long", "title": "t", "text": LONG}]
    counts = []
    for chunks in (None, "{ tokens = 20 }", "{ tokens = 12 }", "{ tokens = 12, overlap = 2 }", "{}", None):
        with opened(uri, tmp_path, chunks) as documents:
            outcome = documents.put(given)
            assert (outcome.written, outcome.truncated) == (1, int(chunks is None)), chunks
            assert documents.put(given) == Outcome(unchanged=1)
            assert documents.get(["long"])["long"]["text"] == LONG
            counts.append(rows(documents, "long"))
    assert counts[0] == counts[-1] == 1
    assert 1 < counts[1] < counts[2] <= counts[3]


def test_a_text_longer_than_a_field_holds_is_stored_whole(tmp_path: Path) -> None:
    text = "".join(f"Sentence {number} of many. " for number in range(4000))
    uri = str(tmp_path / "index.bartizan")
    with opened(uri, tmp_path, chunks=None) as documents:
        (refusal,) = documents.put([{"_id": "a", "text": text}]).refused
        assert "split the document, or set [chunks]" in refusal.reason
    with opened(uri, tmp_path, chunks="{}") as documents:
        assert documents.put([{"_id": "a", "text": text}]) == Outcome(written=1)
        assert documents.get(["a"])["a"]["text"] == text


def test_of_a_document_the_first_chunk_alone_can_count(tmp_path: Path) -> None:
    uri = str(tmp_path / "index.bartizan")
    for of_document in ("max", "first"):
        with opened(uri, tmp_path, of_document=of_document) as documents:
            documents.put([{"_id": "long", "text": LONG}, {"_id": "other", "text": OTHER}])
            found = documents.search("stones", legs=["lexical"])
            assert [hit.id for hit in found] == (["long"] if of_document == "max" else [])
            chunks = [hit.chunk for hit in documents.search("stones lie", k=2, legs=["dense"])]
            assert (len(chunks), any(chunks)) == (2, of_document == "max")


def test_from_a_bare_path_the_settings_are_an_argument(tmp_path: Path) -> None:
    tower = export_folder("bert", "fp32")
    with Documents.at(tmp_path / "i.bartizan", tower, chunks={"tokens": 16, "at": "token"}) as documents:
        documents.put([{"_id": "a", "text": LONG}])
        assert rows(documents, "a") > 8
        assert documents.get(["a"])["a"]["text"] == LONG
