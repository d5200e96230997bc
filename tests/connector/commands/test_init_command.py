"""`bartizan init`: a file that fits the towers given, is read as it stands, and takes nothing's place."""

import shutil
from pathlib import Path

import pytest

from bartizan_connector.__main__ import main
from bartizan_connector.config import Config
from bartizan_connector.config.towers import collection_of
from bartizan_encoders.tower import Tower
from tests.exports import export_folder, tower_folder


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(words)
    return int(ended.value.code or 0)


@pytest.fixture
def aligned(tmp_path: Path) -> Path:
    """A query tower in the space of another."""
    large = Tower.load(tower_folder("bert"))
    small = large.cut([0])
    small.spec = small.spec.aligned_to(large.spec)
    small.save(tmp_path / "small")
    return tmp_path / "small"


def test_towers_are_sorted_into_spaces_roles_and_engines(
    aligned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sparse = tower_folder("sparse-bert")
    shutil.copytree(export_folder("bert", "fp32"), tmp_path / "document")
    target = tmp_path / "made" / "bartizan.toml"
    target.parent.mkdir()
    assert run("init", str(aligned), str(sparse), str(tmp_path / "document"), "--out", str(target)) == 0
    config = Config.load(target, {})
    dense, terms = config.spaces["dense"], config.spaces["sparse"]
    assert dense.document_tower.resolve() == tmp_path / "document"
    assert dense.query_tower is not None
    assert dense.query_tower.resolve() == aligned
    assert terms.document_tower.resolve() == terms.query_tower.resolve() == sparse.resolve()  # type: ignore[union-attr]
    engines = [config.encoder(space.encoder(role)).engine for space in (dense, terms) for role in ("document", "query")]
    assert engines == ["onnx", "torch", "torch", "torch"]
    assert [(leg.name, leg.kind) for leg in collection_of(config).legs] == [("dense", "dense"), ("sparse", "sparse")]
    assert "../document" in target.read_text(encoding="utf-8")
    text = target.read_text(encoding="utf-8")
    assert text.count("#") > 10, "it explains itself"


def test_what_it_wrote_serves_ingest_and_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("init", str(export_folder("bert", "fp32"))) == 0
    (tmp_path / "corpus.jsonl").write_text('{"_id": "a", "text": "one tower"}\n', encoding="utf-8")
    assert run("ingest") == 0
    capsys.readouterr()
    assert run("search", "tower") == 0
    assert " a " in capsys.readouterr().out
    before = (tmp_path / "bartizan.toml").read_text()
    assert run("init", str(export_folder("bert", "fp32"))) == 2
    assert "is there already" in capsys.readouterr().err
    assert (tmp_path / "bartizan.toml").read_text() == before


@pytest.mark.parametrize("uri", ["index.db", "http://localhost:19530", "memory:", "store"])
def test_every_address_gives_a_file_that_is_read(uri: str, tmp_path: Path) -> None:
    assert run("init", str(export_folder("bert", "fp32")), "--uri", uri, "--out", str(tmp_path / "it.toml")) == 0
    assert Config.load(tmp_path / "it.toml", {}).backend.lexical is (True if uri == "store" else None)


def test_what_does_not_fit_writes_nothing(aligned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "it.toml"
    tower = str(export_folder("bert", "fp32"))
    for words, told in (
        ([str(tmp_path)], "is not a tower"),
        ([tower, str(aligned), str(tower_folder("bert"))], "more than one tower could answer queries"),
        ([tower, "--name", "no name"], "must be a name"),
    ):
        assert run("init", *words, "--out", str(target)) == 2
        assert told in capsys.readouterr().err
        assert not target.exists()
