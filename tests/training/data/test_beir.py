"""Judged collections: what is read, and what each kind of broken file says."""

from pathlib import Path

import pytest

from bartizan_connector.base.errors import WrongUse
from bartizan_training.data.collections import BeirData
from tests.judged import write_collection

CORPUS = {"d1": ("Bread", "flour and water"), "d2": "only text", "d3": ("", "empty title")}
QUERIES = {"q1": "what is bread", "q2": "nothing"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_collection(
        tmp_path / "kitchen", CORPUS, QUERIES, test={"q1": {"d1": 2, "d2": 0}}, dev={"q2": {"d3": 1}}
    )


def test_a_document_is_its_title_one_space_and_its_text(folder: Path) -> None:
    data = BeirData.read(folder)
    assert data.corpus == {"d1": "Bread flour and water", "d2": "only text", "d3": "empty title"}
    assert data.queries == QUERIES
    assert data.name == "kitchen"


def test_each_split_has_its_own_judgements(folder: Path) -> None:
    data = BeirData.read(folder)
    assert data.splits == ("dev", "test")
    assert data.qrels("test") == {"q1": {"d1": 2, "d2": 0}}
    assert data.qrels("dev") == {"q2": {"d3": 1}}


def test_an_id_may_be_a_number_and_counts_as_its_digits(tmp_path: Path) -> None:
    folder = write_collection(tmp_path / "numbered", {"1": "bread"}, {"7": "bread"}, test={"7": {"1": 1}})
    for path in folder.glob("*.jsonl"):
        path.write_text(path.read_text().replace('"1"', "1").replace('"7"', "7"))
    assert BeirData.read(folder).qrels("test") == {"7": {"1": 1}}
    assert BeirData.read(folder).corpus == {"1": "bread"}


def test_blank_lines_windows_line_ends_and_a_byte_order_mark_change_nothing(folder: Path) -> None:
    expected = BeirData.read(folder)
    for path in [*folder.glob("*.jsonl"), folder / "qrels/test.tsv"]:
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n") + b"\r\n\r\n")
    assert BeirData.read(folder) == expected
    assert BeirData.read(folder).qrels("test") == expected.qrels("test")


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("corpus.jsonl", '{"_id": "d4", "text": "cut of', r"corpus.jsonl:4: not a line of JSON"),
        ("corpus.jsonl", "[" * 100_000, r"corpus.jsonl:4: not a line of JSON"),
        ("corpus.jsonl", '["d4", "text"]', r"corpus.jsonl:4: expected a JSON object, got list"),
        ("corpus.jsonl", '{"_id": true, "text": "x"}', r'corpus.jsonl:4: expected a string "_id", got bool'),
        ("corpus.jsonl", '{"_id": "d4"}', r'corpus.jsonl:4: expected a string "text", got nothing'),
        (
            "corpus.jsonl",
            '{"_id": "d4", "title": 7, "text": "x"}',
            r'corpus.jsonl:4: expected a string "title", got int',
        ),
        ("corpus.jsonl", '{"_id": "d1", "text": "x"}', r"corpus.jsonl:4: the id 'd1' was used before"),
        ("corpus.jsonl", '{"_id": "d4", "text": "half \\ud83d"}', r'corpus.jsonl:4: "text" is not valid Unicode'),
        ("queries.jsonl", '{"_id": "q3", "text": null}', r'queries.jsonl:3: expected a string "text", got NoneType'),
        ("qrels/test.tsv", "q1 d1 1", r"test.tsv:4: expected query-id ⇥ corpus-id ⇥ whole number, got 'q1 d1 1'"),
        ("qrels/test.tsv", "q1\td1\t0.5", r"test.tsv:4: expected query-id"),
        ("qrels/test.tsv", "q9\td1\t1", r"test.tsv:4: query 'q9' is judged but not in queries.jsonl"),
        ("qrels/test.tsv", "q1\td9\t1", r"test.tsv:4: document 'd9' is judged but not in corpus.jsonl"),
        ("qrels/test.tsv", "q1\td1\t0", r"test.tsv:4: query 'q1' and document 'd1' were judged before, otherwise"),
    ],
)
def test_a_broken_line_is_named_by_file_and_number(folder: Path, file: str, line: str, message: str) -> None:
    with (folder / file).open("a", encoding="utf-8") as opened:
        opened.write(line + "\n")
    with pytest.raises(WrongUse, match=message):
        BeirData.read(folder).qrels("test")


def test_a_line_that_is_not_utf_8_is_named(folder: Path) -> None:
    with (folder / "corpus.jsonl").open("ab") as opened:
        opened.write(b'{"_id": "d4", "text": "caf\xe9"}\n')
    with pytest.raises(WrongUse, match=r"corpus.jsonl:4: not UTF-8 \(byte 26 of the line\)"):
        BeirData.read(folder)


@pytest.mark.parametrize("file", ["corpus.jsonl", "queries.jsonl"])
def test_a_missing_or_empty_file_is_named(folder: Path, file: str) -> None:
    (folder / file).write_text("\n")
    with pytest.raises(WrongUse, match=rf"{file} is empty"):
        BeirData.read(folder)
    (folder / file).unlink()
    with pytest.raises(WrongUse, match=rf"cannot read .*{file}: No such file or directory"):
        BeirData.read(folder)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match=r"nowhere is not a folder; give one in BEIR layout"):
        BeirData.read(tmp_path / "nowhere")


def test_an_unknown_split_lists_the_known_ones(folder: Path) -> None:
    with pytest.raises(WrongUse, match=r"no split 'train'; it has dev, test"):
        BeirData.read(folder).qrels("train")


def test_a_collection_without_judgements_says_so(tmp_path: Path) -> None:
    data = BeirData.read(write_collection(tmp_path / "bare", CORPUS, QUERIES, test={}))
    with pytest.raises(WrongUse, match=r"split 'test' of .* holds no judgements"):
        data.qrels("test")
    (data.folder / "qrels/test.tsv").unlink()
    with pytest.raises(WrongUse, match=r"no split 'test'; it has no qrels/\*.tsv at all"):
        BeirData.read(data.folder).qrels("test")


def test_judgements_without_the_header_are_refused(folder: Path) -> None:
    (folder / "qrels/test.tsv").write_text("q1\td1\t1\n")
    with pytest.raises(WrongUse, match=r"test.tsv:1: expected the header query-id ⇥ corpus-id ⇥ score"):
        BeirData.read(folder).qrels("test")


def test_the_digest_changes_with_whatever_decides_the_measures_and_with_nothing_else(folder: Path) -> None:
    before = BeirData.read(folder).digest("test")
    assert BeirData.read(folder.rename(folder.with_name("moved"))).digest("test") == before
    folder = folder.with_name("moved")
    other = BeirData.read(folder)
    assert other.digest("dev") != before
    (folder / "qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\td2\t0\n")
    assert BeirData.read(folder).digest("test") != before
