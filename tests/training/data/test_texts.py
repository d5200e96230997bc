"""Texts out of files and documents: what is kept, what is drawn, what is refused."""

from pathlib import Path

import pytest

from bartizan_connector.base.errors import WrongUse
from bartizan_training.data.texts import read_texts
from bartizan_training.settings import CorpusSentences, Lines, Queries


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
    with pytest.raises(WrongUse, match=r"log.txt:1: not UTF-8"):
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
