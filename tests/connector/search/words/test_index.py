"""The word index: BM25 by hand, words, hostile texts, filters, ties, durability and the writer's lock."""

import math
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bartizan_connector.base.errors import Reject, Retry, Stop, WrongUse
from bartizan_connector.search.words.index import WordIndex
from bartizan_connector.search.words.ownership import take
from bartizan_connector.store.collection import Row, Scalar
from bartizan_connector.store.filters import matches, parse
from bartizan_connector.testing.rows import HOSTILE
from tests.connector.store.congruence import VALUES, random_filter


@pytest.fixture
def index(tmp_path: Path) -> Iterator[WordIndex]:
    index = WordIndex(tmp_path / "words", "docs")
    yield index
    index.close()


def row(id: str, text: str, *, chunk: int = 0, hash: str = "h", **fields: Scalar) -> Row:
    return Row(id=id, chunk=chunk, vectors={}, fields={"text": text, **fields}, version=1, hash=hash)


def ids(index: WordIndex, text: str, k: int = 10, filter: str | None = None) -> list[str]:
    return [hit.id for hit in index.search(text, k, parse(filter) if filter else None)]


def test_scores_are_bm25(index: WordIndex) -> None:
    """Against the formula, on documents short enough that Tantivy keeps their exact length."""
    dice = random.Random(0)
    texts = {f"d{i:02}": dice.choices(("ant", "bee", "cat", "dog", "fox"), k=dice.randrange(1, 12)) for i in range(40)}
    index.upsert([row(id, " ".join(words)) for id, words in texts.items()])
    mean = sum(map(len, texts.values())) / len(texts)
    expected: dict[str, float] = {}
    for word, asked in {"ant": 2, "fox": 1}.items():
        holding = sum(word in words for words in texts.values())
        idf = math.log(1 + (len(texts) - holding + 0.5) / (holding + 0.5))
        for id, words in texts.items():
            if count := Counter(words)[word]:
                norm = count + 1.2 * (1 - 0.75 + 0.75 * len(words) / mean)
                expected[id] = expected.get(id, 0.0) + asked * idf * count * 2.2 / norm
    hits = index.search("ant fox ANT", 100)
    assert {hit.id: hit.score for hit in hits} == pytest.approx(expected, rel=1e-5)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_title_and_text_are_searched_by_the_stem_of_a_word_in_any_case(index: WordIndex) -> None:
    index.upsert([row("a", "how to pause", title="Running threads"), row("b", "a café in os.path.join", title="")])
    assert ids(index, "run") == ["a"]
    assert ids(index, "PAUSED thread") == ["a"]
    assert ids(index, "cafe") == ids(index, "Café") == ids(index, "join") == ["b"]
    assert ids(index, "runtime") == []


def test_a_hit_carries_every_field_as_it_was(index: WordIndex) -> None:
    fields: dict[str, Scalar] = {"title": 'é\x00"', "year": 2**63 - 1, "price": 0.1, "fresh": True}
    index.upsert([row("a", "word", chunk=3, **fields)])
    (hit,) = index.search("word", 5)
    assert (hit.id, hit.chunk, hit.fields) == ("a", 3, {"text": "word", **fields})


def test_an_upsert_replaces_a_document_whole(index: WordIndex) -> None:
    index.upsert([row("a", "first words", chunk=chunk) for chunk in range(4)] + [row("b", "words")])
    index.upsert([row("a", "second words", hash="new"), row("a", "third words", hash="new")])
    assert ids(index, "first") == ids(index, "second") == []
    assert ids(index, "words") == ["b", "a"]
    assert index.hashes(["a", "b", "c", "\ud800"]) == {"a": "new", "b": "h"}


def test_a_delete_removes_and_a_missing_id_is_fine(index: WordIndex) -> None:
    index.upsert([row("a", "word", chunk=chunk) for chunk in range(3)] + [row("b", "word")])
    index.delete(["a", "never"])
    index.delete([])
    index.upsert([])
    assert ids(index, "word") == ["b"]
    assert index.hashes(["a"]) == {}


def test_hostile_ids_and_texts_are_just_texts(index: WordIndex) -> None:
    index.upsert([row(text, f"needle {text}", title=text) for text in HOSTILE])
    assert set(ids(index, "needle", 100)) == set(HOSTILE)
    assert set(index.hashes(HOSTILE)) == set(HOSTILE)
    index.delete(HOSTILE[1:])
    assert ids(index, "needle", 100) == [HOSTILE[0]]


@pytest.mark.parametrize(
    "text",
    ["", "  ", "!?", "…", '"unbalanced', "title:", "text:[a TO", "a AND OR NOT", "(((", "+-", "*", "word~9999", "^",
     "a:b:c", "\\", "\x00", "\ud800", "/[/", "IN [a b]", "word " * 50_000, "w" * 100_000],
)  # fmt: skip
def test_no_query_is_a_syntax_error(index: WordIndex, text: str) -> None:
    index.upsert([row("a", "word")])
    assert ids(index, text) in ([], ["a"])


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[WordIndex, list[Row]]]:
    """Two hundred rows, most of them equal in score."""
    dice = random.Random(1)
    rows = [
        row(
            f"d{i:03}",
            dice.choice(("word", "word", "word word", "other")),
            **{k: dice.choice(v) for k, v in VALUES.items()},
        )
        for i in range(200)
    ]
    index = WordIndex(tmp_path_factory.mktemp("filled") / "words", "docs")
    for start in range(0, len(rows), 40):
        index.upsert(dice.sample(rows[start : start + 40], 40))
    yield index, rows
    index.close()


@given(text=st.text(max_size=40))
@settings(deadline=None)
def test_any_text_is_a_query(filled: tuple[WordIndex, list[Row]], text: str) -> None:
    filled[0].search(text, 3)


@given(dice=st.randoms(use_true_random=False), k=st.sampled_from([1, 3, 10, 60, 500]))
@settings(max_examples=50, deadline=None)
def test_filters_and_ties_hold_however_k_cuts(filled: tuple[WordIndex, list[Row]], dice: random.Random, k: int) -> None:
    index, rows = filled
    filter = random_filter(dice)
    everything = {hit.id: hit for hit in index.search("word", 1000)}
    assert set(everything) == {each.id for each in rows if "word" in str(each.fields["text"])}
    passing = [hit for hit in everything.values() if matches(filter, {"id": hit.id, **hit.fields})]
    wanted = sorted(passing, key=lambda hit: (-hit.score, hit.id))[:k]
    assert index.search("word", k, filter) == wanted


def test_what_was_written_is_there_after_kill_9_and_the_lock_is_free(tmp_path: Path) -> None:
    program = f"""
import os, signal
from pathlib import Path
from bartizan_connector.store.collection import Row
from bartizan_connector.search.words.index import WordIndex
index = WordIndex(Path({str(tmp_path / "words")!r}), "docs")
index.upsert([Row(id=f"d{{i}}", vectors={{}}, fields={{"text": "word"}}, version=1, hash="h") for i in range(50)])
index.delete(["d0"])
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == -signal.SIGKILL
    index = WordIndex(tmp_path / "words", "docs")
    assert set(ids(index, "word", 100)) == {f"d{i}" for i in range(1, 50)}
    index.upsert([row("d0", "word")])
    assert len(ids(index, "word", 100)) == 50
    index.close()


def test_a_full_disk_stops_the_write_and_keeps_what_was_stored(tmp_path: Path) -> None:
    program = f"""
import random, resource, signal, sys
from pathlib import Path
from bartizan_connector.store.collection import Row
from bartizan_connector.base.errors import Stop
from bartizan_connector.search.words.index import WordIndex
def write(id, text):
    index.upsert([Row(id=id, vectors={{}}, fields={{"text": text}}, version=1, hash="h")])
index = WordIndex(Path({str(tmp_path / "words")!r}), "docs")
write("kept", "word")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
try:
    write("large", " ".join(str(random.random()) for _ in range(20_000)))
except Stop as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
write("later", "word")
print(*(hit.id for hit in index.search("word", 10)))
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    refusal, found = ran.stdout.splitlines()
    assert "no room to write" in refusal
    assert found == "kept later"


def test_a_second_writer_is_told_to_wait_while_readers_see_each_commit(tmp_path: Path) -> None:
    first, second = WordIndex(tmp_path / "words", "docs"), WordIndex(tmp_path / "words", "docs")
    first.upsert([row("a", "word")])
    with pytest.raises(Retry, match="another process"):
        second.upsert([row("b", "word")])
    assert ids(second, "word") == ["a"]
    first.upsert([row("c", "word")])
    assert ids(second, "word") == ["a", "c"]
    first.close()
    first.close()
    second.upsert([row("b", "word")])
    assert ids(first, "word") == ["a", "b", "c"]
    second.close()


def test_a_refused_batch_changes_nothing(index: WordIndex) -> None:
    index.upsert([row("a", "word")])
    for bad in ("", "\ud800", "é" * 300):
        with pytest.raises(Reject) as raised:
            index.upsert([row("a", "gone"), row(bad, "word")])
        assert raised.value.ids == (bad,)
    assert ids(index, "word") == ["a"]


def test_a_reader_makes_no_index_and_says_what_is_missing(tmp_path: Path) -> None:
    index = WordIndex(tmp_path / "words", "docs")
    assert index.hashes(["a"]) == {}
    with pytest.raises(WrongUse, match="no word index"):
        index.search("word", 1)
    index.close()
    assert not (tmp_path / "words").exists()


def test_a_folder_that_is_no_word_index_is_refused_with_the_way_out(tmp_path: Path, index: WordIndex) -> None:
    take(tmp_path / "words", "docs")
    (tmp_path / "words" / "meta.json").write_text('{"broken')
    for use in (lambda: ids(index, "word"), lambda: index.upsert([row("a", "word")]), lambda: index.hashes(["a"])):
        with pytest.raises(Stop, match=r"set \[backend\] lexical to a new folder"):
            use()
    (tmp_path / "file").write_text("")
    with pytest.raises(Stop, match="is no folder; set"):
        WordIndex(tmp_path / "file", "docs").upsert([row("a", "word")])


def test_an_index_that_was_filled_without_a_field_cannot_be_filtered_by_it(index: WordIndex) -> None:
    index.upsert([row("a", "word")])
    with pytest.raises(Stop, match=r"without the field 'year'(.|\n)*ingest again"):
        ids(index, "word", filter="year == 1")


def test_the_deadline_ends_a_search_for_what_no_row_passes(filled: tuple[WordIndex, list[Row]]) -> None:
    with pytest.raises(Retry, match="deadline"):
        filled[0].search("word", 1, parse("id == 'nobody'"), timeout=0.0)


def test_k_must_be_at_least_one(index: WordIndex) -> None:
    index.upsert([row("a", "word")])
    with pytest.raises(WrongUse, match="k = 0"):
        index.search("word", 0)
