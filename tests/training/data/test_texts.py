"""Texts out of files and documents: what is kept, what is drawn, what is refused."""

import json
from pathlib import Path

import pytest

from bartizan_connector.base.errors import WrongUse
from bartizan_training.data.texts import read_texts
from bartizan_training.settings import CorpusSentences, Lines, Queries

DOCUMENTS = {
    "d1": ("Sleep", "Suspend the program. It takes seconds, as a float!"),
    "d2": ("", "Compare two files byte by byte."),
    "d3": ("", "Compare two files byte by byte."),
    "d4": ("", "Short one."),
}
QUERIES = {"q1": "pause", "q2": "are two files equal", "q3": "pause", "q4": "nobody judged me"}
TRAIN = [("q1", "d1", 1), ("q2", "d2", 2), ("q2", "d4", 0), ("q3", "d4", 1)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [{"_id": id, "title": title, "text": text} for id, (title, text) in DOCUMENTS.items()]
    write(tmp_path / "corpus.jsonl", [json.dumps(row) for row in rows])
    write(tmp_path / "queries.jsonl", [json.dumps({"_id": id, "text": text}) for id, text in QUERIES.items()])
    (tmp_path / "qrels").mkdir()
    header = "query-id\tcorpus-id\tscore"
    write(tmp_path / "qrels" / "train.tsv", [header, *(f"{q}\t{d}\t{grade}" for q, d, grade in TRAIN)])
    write(tmp_path / "qrels" / "empty.tsv", [header, "q1\td1\t0"])
    return tmp_path


def write(path: Path, lines: list[str]) -> None:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_queries_of_a_split_leave_the_others_out(folder: Path) -> None:
    some = read_texts([Queries(kind="queries", path=folder, split="train")], seed=[0])
    every = read_texts([Queries(kind="queries", path=folder)], seed=[0])
    assert some == ("pause", "are two files equal")
    assert every == (*some, "nobody judged me")


def test_lines_keep_their_text_and_equal_ones_are_one(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text("a b\n\n  \nc\u2028d\na b\n", encoding="utf-8")
    assert read_texts([Lines(kind="lines", path=log)], seed=[0]) == ("a b", "c\u2028d")


def test_a_query_log_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_bytes(b"caf\xe9\n")
    with pytest.raises(WrongUse, match=r"log.txt is not UTF-8"):
        read_texts([Lines(kind="lines", path=log)], seed=[0])


def test_a_source_that_adds_nothing_is_refused(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text("a\n", encoding="utf-8")
    with pytest.raises(WrongUse, match=r"text source 2 .* adds no text"):
        read_texts([Lines(kind="lines", path=log), Lines(kind="lines", path=log)], seed=[0])


def test_corpus_sentences_are_spans_of_one_sentence_and_follow_the_seed(folder: Path) -> None:
    source = CorpusSentences(kind="corpus_sentences", path=folder, count=200, min_words=2, max_words=4)
    drawn = read_texts([source], seed=[0])
    sentences = [
        "Sleep Suspend the program.",
        "It takes seconds, as a float!",
        "Compare two files byte by byte.",
        "Short one.",
    ]
    for text in drawn:
        assert 2 <= len(text.split()) <= 4
        assert any(f" {text} " in f" {sentence} " for sentence in sentences)
    assert drawn == read_texts([source], seed=[0])
    assert drawn != read_texts([source], seed=[1])
    assert "Short one." in drawn


def test_a_corpus_without_a_long_enough_sentence_is_refused(folder: Path) -> None:
    source = CorpusSentences(kind="corpus_sentences", path=folder, count=5, min_words=50, max_words=60)
    with pytest.raises(WrongUse, match=r"no document .* has a sentence of 50 words"):
        read_texts([source], seed=[0])
