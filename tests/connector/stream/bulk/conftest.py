"""What a first fill by files begins with: a back-end in memory, some lines of documents, a folder."""

import json
from pathlib import Path

import pytest

from tests.connector.stream.bulk.importing import Loaded


@pytest.fixture
def backend() -> Loaded:
    return Loaded()


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    lines = [{"_id": f"d{n}", "text": f"word {n}"} for n in range(250)]
    more = [
        {"_id": "d1", "text": "again"},
        {"_id": "d2", "_deleted": True},
        {"_id": 1.5},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in [*lines, *more]), "utf-8")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "seen").mkdir()
    return tmp_path / "seen"
