"""Verification of documents in several chunks: each is held against the whole, cut as its head says."""

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from bartizan_connector import Config, Documents
from bartizan_connector.doctor.verify.verification import verify
from tests.exports import export_folder

LONG = "A tower stands. The moat is deep. " * 12


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "bartizan.toml").write_text(
        f'collection.name = "long"\nspaces.dense.document_tower = "{export_folder("bert", "fp32")}"\n'
        'backend = { uri = "index.bartizan", lexical = true }\nchunks = { tokens = 20, overlap = 4 }\n'
    )
    config = Config.load(tmp_path / "bartizan.toml")
    put(config)
    return config


def put(config: Config) -> int:
    with Documents(config) as documents:
        return documents.put([{"_id": "long", "title": "t", "text": LONG}, {"_id": "short", "text": "a moat"}]).written


def spoil(config: Config, sql: str, *values: object) -> None:
    with closing(sqlite3.connect(config.backend.path)) as connection, connection:
        connection.execute(sql, values)


def test_what_is_stored_is_sound_whatever_the_settings_are_now(config: Config) -> None:
    for chunks in (config.chunks, None):
        tally = verify(config.model_copy(update={"chunks": chunks}), vectors=None)
        assert (dict(tally.found), tally.notes, tally.compared) == ({}, [], 2)
        assert tally.rows > 8


@pytest.mark.parametrize("chunk", [0, 2])
def test_a_chunk_that_lacks_is_found_and_ingest_completes_it(config: Config, chunk: int) -> None:
    spoil(config, "DELETE FROM rows_1 WHERE id = 'long' AND chunk = ?", chunk)
    assert dict(verify(config).found) == {"missing row": 1}
    assert verify(config, repair=True).pending["missing row"] == 1
    assert put(config) == 1
    assert not verify(config, vectors=None).found


def test_text_that_was_changed_behind_the_store_is_found(config: Config) -> None:
    spoil(
        config, "UPDATE texts_1 SET f = 'another' WHERE row = (SELECT row FROM rows_1 WHERE id = 'long' AND chunk = 3)"
    )
    assert "stale row" in verify(config).found


def test_a_chunk_s_foreign_vector_is_found_and_encoded_again(config: Config) -> None:
    with Documents(config) as documents:
        (*_, last) = documents.store.get(["long"], vectors=True)["long"].rows
        vector = np.asarray(last.vectors["dense"].value)
    blob = np.roll(vector, 1).astype("<f4").tobytes()
    row = "(SELECT row FROM rows_1 WHERE id = 'long' AND chunk = ?)"
    spoil(config, f"UPDATE vectors_1_0 SET value = ? WHERE row = {row}", blob, last.chunk)
    assert f"(chunk {last.chunk})" in verify(config, vectors=None).examples["foreign vector"][0]
    assert verify(config, vectors=None, repair=True).mended["foreign vector"] == 1
    assert not verify(config, vectors=None).found
    with Documents(config) as documents:
        mended = documents.store.get(["long"], vectors=True)["long"]
        np.testing.assert_allclose(mended.rows[-1].vectors["dense"].value, vector, atol=1e-5)
        assert mended.fields["text"] == LONG
