"""A collection that a released version filled is ingested into again: what is stored is known, edits are newer."""

import json
import os
import shutil
from pathlib import Path

import pytest

from bartizan_connector.commands.ingest import ingest_all
from bartizan_connector.config import Config
from bartizan_connector.config.towers import collection_of
from bartizan_connector.store.collection import Head
from bartizan_connector.stream.sources import open_source

FIXTURES = Path(__file__).parents[2] / "fixtures"


@pytest.fixture(params=sorted(folder.name for folder in FIXTURES.iterdir()))
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of what that version wrote, with a configuration of today."""
    folder = tmp_path / "project"
    shutil.copytree(FIXTURES / request.param, folder)
    (folder / "bartizan.toml").write_text(
        """
        [collection]
        name = "docs"
        fields = [{ name = "year", type = "int", default = 0 }]
        [spaces.dense]
        document_tower = "exports/document"
        [backend]
        uri = "index.db"
        lexical = "words"
        [source]
        path = "docs.jsonl"
        """
    )
    return folder


def heads(config: Config) -> dict[str, Head]:
    backend = config.backend.open()
    found = backend.open(collection_of(config), create=False).heads(["a", "b", "c"])
    backend.close()
    return dict(found)


def set_time(path: Path, milliseconds: int) -> None:
    os.utime(path, ns=(0, milliseconds * 1_000_000))


def test_what_a_released_version_stored_is_not_encoded_again_and_edits_are_newer(project: Path) -> None:
    config = Config.load(project / "bartizan.toml")
    before = heads(config)
    lines = (project / "docs.jsonl").read_text(encoding="utf-8").splitlines()
    set_time(project / "docs.jsonl", before["a"].version >> 20)
    report = ingest_all(config, open_source(config))
    assert (report.unchanged, report.stale, report.read) == (2, 1, 3), "one of them was deleted after that"
    assert heads(config) == before

    edited = [json.dumps(json.loads(line) | {"text": "a text of today"}) for line in lines]
    (project / "docs.jsonl").write_text("\n".join(edited), encoding="utf-8")
    set_time(project / "docs.jsonl", (before["c"].version >> 20) + 60_000)
    assert ingest_all(config, open_source(config)).written == 3
    after = heads(config)
    assert all(after[id].version > head.version and not after[id].deleted for id, head in before.items())
