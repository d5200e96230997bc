"""`bartizan verify` as an operator meets it: what it prints, its exit codes, and what it refuses."""

import json
from contextlib import closing

import pytest

from bartizan_connector.search.words.index import WordIndex
from tests.connector.commands.test_search_command import Project, made, project

__all__ = ["made", "project"]


def test_a_sound_collection_is_said_to_be_sound(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert project.run("verify") == 0
    assert "nothing is damaged" in capsys.readouterr().out
    assert project.run("verify", "--vectors", "all", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["damages"] == facts["notes"] == []
    assert facts["documents"] == facts["rows"] == facts["vectors_compared"] > 0


def test_what_is_damaged_is_named_and_mended(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    with closing(WordIndex(project.folder / "words", "docs")) as words:
        words.delete(list(next(iter(words.pages()))))
    assert project.run("verify") == 1
    said = capsys.readouterr().out
    assert "words behind" in said
    assert "→ bartizan verify --repair brings the words up" in said
    assert project.run("verify", "--repair", "--json") == 0
    (damage,) = json.loads(capsys.readouterr().out)["damages"]
    assert (damage["kind"], damage["mended"]) == ("words behind", damage["count"])
    assert project.run("verify") == 0


def test_what_cannot_be_meant_is_refused(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert project.run("verify", "--vectors", "-1") == project.run("verify", "--vectors", "some") == 2
    assert "give a number of documents, or all" in capsys.readouterr().err
    project.configure(uri="elsewhere.db")
    assert project.run("verify") == 2
    assert "ingest documents first" in capsys.readouterr().err
