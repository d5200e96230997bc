"""A tower that is too large for one ONNX file: what export says of it is a way that can be gone."""

import json
from pathlib import Path

import pytest

from bartizan_connector.__main__ import main
from bartizan_connector.space.spec import TowerSpec
from bartizan_encoders.tower import Tower
from bartizan_triton import graph
from bartizan_triton.export import export_tower
from tests.exports import tower_folder
from tests.judged import write_collection


def run(*words: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return int(ended.value.code or 0)


@pytest.fixture(scope="module")
def query(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tower` is small and of the large one's space; `export` is its export."""
    folder = tmp_path_factory.mktemp("query")
    large = Tower.load(tower_folder("bert"))
    small = large.cut([0])
    small.spec = small.spec.aligned_to(large.spec)
    small.save(folder / "tower")
    export_tower(folder / "tower", folder / "export")
    return folder


@pytest.fixture
def limited(query: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One ONNX file can hold the small tower, not the large one."""
    monkeypatch.setattr(graph, "_LARGEST", (query / "tower/model.safetensors").stat().st_size)


@pytest.mark.usefixtures("limited")
def test_export_names_the_way_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("export", tower_folder("bert"), "--out", tmp_path / "out") == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "more than one ONNX file can" in told
    assert '[encoders.document] engine = "torch"' in told
    assert "distil a smaller tower" in told
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("limited")
def test_its_documents_are_encoded_by_itself_and_found_by_a_small_exported_query_tower(
    query: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "docs.jsonl").write_text(json.dumps({"_id": "d", "text": "the tower of wood"}), encoding="utf-8")
    config = tmp_path / "bartizan.toml"
    config.write_text(
        f"""
        backend = {{ uri = "index.db" }}
        source = {{ path = "docs.jsonl" }}
        collection = {{ name = "docs" }}
        encoders.document = {{ engine = "torch" }}
        [spaces.dense]
        document_tower = "{tower_folder("bert")}"
        query_tower = "{query / "export"}"
        """,
        encoding="utf-8",
    )
    assert run("ingest", config) == 0
    assert run("doctor", "--config", config) == 0
    capsys.readouterr()
    assert run("search", "wood", "--config", config, "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert [hit["id"] for hit in answer["results"]] == ["d"]
    assert answer["tower_id"] == TowerSpec.read(query / "export").tower_id
    assert answer["space_id"] == TowerSpec.read(tower_folder("bert")).space_id


@pytest.mark.usefixtures("limited")
def test_it_is_judged_by_itself(query: Path, tmp_path: Path) -> None:
    data = write_collection(tmp_path / "data", {"d": "wood", "e": "stone"}, {"q": "wood"}, test={"q": {"d": 1}})
    words = ("eval", data, "--tower", tower_folder("bert"), "--query-tower", query / "tower")
    assert run(*words) == 2
    assert run(*words, "--engine", "torch") == 0
