"""Which files of a folder a run holds itself to."""

from pathlib import Path

import pytest

from bartizan_training.data.contents import readers_of


@pytest.mark.parametrize("file", ["corpus.jsonl", "queries.jsonl", "qrels/train.tsv", "triples.tsv", "tokenizer.json"])
def test_every_kind_of_data_in_a_folder_counts_for_each_step_that_names_it(tmp_path: Path, file: str) -> None:
    read, beside = tmp_path / file, tmp_path / "README.md"
    read.parent.mkdir(exist_ok=True)
    for path in (read, beside):
        path.write_text("text", encoding="utf-8")
    assert readers_of([(1, tmp_path), (3, tmp_path)]) == {read: frozenset({1, 3})}
