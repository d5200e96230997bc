"""A small judged collection, with texts that stand twice."""

import json
from pathlib import Path

import pytest

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
