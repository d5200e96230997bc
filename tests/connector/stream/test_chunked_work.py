"""The pipeline with long documents: what is written, what is set aside, and what the words hold."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bartizan_connector.config.settings import ChunkSettings
from bartizan_connector.search.words.index import WordIndex
from bartizan_connector.store.memory import MemoryBackend
from bartizan_connector.stream import towers
from bartizan_connector.stream.chunks import Cutter
from bartizan_connector.stream.report import Report
from bartizan_connector.stream.work import run
from bartizan_connector.testing.encoder_fake import HashEncoder
from tests.connector.stream.disruptions import UNENCODABLE, DoomedEncoder, Fate
from tests.connector.stream.reading import WordReading
from tests.connector.stream.streams import ListSource, collection_for, message

TOWER = HashEncoder(dim=8)
COLLECTION = collection_for(TOWER.spec)
LONG = "One two three four five. Six seven eight nine ten. Eleven. Twelve thirteen fourteen fifteen."


def cutter(**given: Any) -> Cutter:
    return Cutter({"dense": WordReading(8)}, ChunkSettings(**given))


def work(
    backend: MemoryBackend, texts: Mapping[str, str | None], version: int = 1, **how: Any
) -> tuple[Report, ListSource]:
    source = ListSource([message(id, text, version) for id, text in texts.items()])
    tower = how.pop("tower", TOWER)
    return run(source, {"dense": tower}, backend, collection_for(tower.spec), **how), source


def test_a_document_of_too_many_chunks_is_set_aside_and_the_rest_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(towers, "MAX_CHUNKS", 2)
    backend = MemoryBackend()
    report, source = work(backend, {"a": LONG, "b": "short"}, cutter=cutter())
    assert (report.written, report.dead) == (1, 1)
    assert "the document comes to 3 chunks, and at most 2 are stored" in source.dead[0][1]
    assert list(backend.open(COLLECTION).get(["a", "b"])) == ["b"]


def test_a_document_of_which_a_tower_refuses_one_chunk_is_refused_whole() -> None:
    backend = MemoryBackend()
    text = f"One two three four five six.\n\n{UNENCODABLE}"
    report, source = work(backend, {"a": text, "b": LONG}, cutter=cutter(), tower=DoomedEncoder(Fate()))
    assert [position for position, _ in source.dead] == ["list:a@1"]
    assert (report.written, report.truncated) == (1, 0)
    assert list(backend.open(COLLECTION).get(["a", "b"])) == ["b"]


def test_without_settings_a_long_document_is_one_row_and_is_counted_as_truncated() -> None:
    backend = MemoryBackend()
    tower = HashEncoder(dim=8, max_tokens=8)
    report, _ = work(backend, {"a": LONG}, tower=tower)
    assert (report.written, report.truncated, backend.open(collection_for(tower.spec)).count()) == (1, 1, 1)


@pytest.mark.parametrize("origin", ["", "list:a"])
def test_other_settings_cut_what_comes_again_anew_though_it_is_no_newer(origin: str) -> None:
    backend = MemoryBackend()

    def ingested(version: int, text: str, cutter: Cutter | None) -> tuple[Report, int]:
        source = ListSource([replace(message("a", text, version), origin=origin, offset=version)])
        report = run(source, {"dense": TOWER}, backend, COLLECTION, cutter=cutter)
        return report, backend.open(COLLECTION).count()

    whole, short = None, cutter()
    for given, rows in ((whole, 1), (short, 3), (whole, 1), (short, 3)):
        report, count = ingested(2, LONG, given)
        assert (report.written, report.stale, count) == (1, 0, rows)
        assert backend.open(COLLECTION).heads(["a"])["a"].version == 2
    report, count = ingested(2, LONG, short)
    assert (report.unchanged, count) == (1, 3)
    report, count = ingested(1, LONG, whole)
    assert (report.stale, count) == (1, 3)


@pytest.mark.parametrize(("title", "truncated"), [("two words", 0), ("a title of five words", 1), ("w " * 9, 1)])
def test_a_title_that_is_longer_than_its_share_is_counted(title: str, truncated: int) -> None:
    source = ListSource([message("a", LONG, 1, title=title)])
    report = run(source, {"dense": TOWER}, MemoryBackend(), COLLECTION, cutter=cutter())
    assert (report.written, report.truncated) == (1, truncated)


def test_a_word_index_that_is_added_later_gets_the_chunks_of_what_is_unchanged(tmp_path: Path) -> None:
    backend = MemoryBackend()
    work(backend, {"a": LONG, "b": "six"}, cutter=cutter())
    words = WordIndex(tmp_path / "words", "docs")
    report, _ = work(backend, {"a": LONG, "b": "six"}, 2, cutter=cutter(), words=words)
    assert report.unchanged == 2
    assert [(hit.id, hit.chunk) for hit in words.search("six", 9)] == [("b", 0), ("a", 1)]
    work(backend, {"a": "six", "b": None}, 3, cutter=cutter(), words=words)
    assert [(hit.id, hit.chunk) for hit in words.search("six", 9)] == [("a", 0)]
    assert not words.search("twelve", 9)
    words.close()
