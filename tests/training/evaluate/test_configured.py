"""`bartizan eval --config`: a collection with a dense and a sparse leg is judged as it is searched."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bartizan_connector.base.errors import Stop, WrongUse
from bartizan_connector.config import Config
from bartizan_connector.config.settings import SearchSettings
from bartizan_connector.config.towers import collection_of
from bartizan_connector.search.retriever import Retriever
from bartizan_connector.space.spec import Role
from bartizan_connector.space.vectors import Vectors
from bartizan_connector.testing.encoder_fake import HashEncoder
from bartizan_training.data.collections import BeirData
from bartizan_training.evaluate.configured import ConfiguredEvaluation
from bartizan_training.evaluate.measuring import measure
from bartizan_training.evaluate.results import Result
from tests.connector.search.configured import TEXTS, Log, configured, rows
from tests.connector.testing.sparse_fake import WordEncoder
from tests.judged import write_collection
from tests.training.evaluate.conftest import Run

QUERIES = {"q1": "copy one file", "q2": "walk the tree", "q3": "pause for seconds"}
QRELS = {"q1": {"copy": 2, "join": 1}, "q2": {"walk": 1}, "q3": {"sleep": 1, "copy": 0}}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    corpus = {id: (id, text) for id, text in TEXTS.items()}
    return write_collection(tmp_path / "tasks", corpus, QUERIES, test=QRELS, dev={"q1": QRELS["q1"]})


def both() -> dict[str, Any]:
    return {"dense": HashEncoder(), "terms": WordEncoder()}


def project(folder: Path, log: Log | None = None, **how: Any) -> Config:
    return configured(folder, both(), log, **how)


@pytest.mark.parametrize("words", [False, True])
def test_a_collection_of_a_dense_and_a_sparse_leg_is_judged_as_it_is_searched(
    tmp_path: Path, data: Path, words: bool
) -> None:
    log, search = Log(), SearchSettings(fusion="scores", weights={"terms": 0.5})
    config = project(tmp_path, log, words=words, search=search)
    result = ConfiguredEvaluation(data=data, config=config).run()
    with Retriever.open(config) as retriever:
        found = {query: [hit.id for hit in retriever.search(text, 100)] for query, text in QUERIES.items()}
    expected = measure(BeirData.read(data).qrels("test"), found)
    assert result.metrics == expected.metrics
    assert result.per_query == expected.per_query
    assert list(result.metrics) == ["nDCG@10", "RR@10", "AP@100", "R@10", "R@100"]
    fakes = both()
    assert {leg: (each.tower_id, each.query_tower_id, each.space_id) for leg, each in result.legs.items()} == {
        leg: (fake.spec.tower_id, fake.spec.tower_id, fake.spec.space_id) for leg, fake in fakes.items()
    }
    assert result.tower_id == " + ".join(fake.spec.tower_id for fake in fakes.values())
    assert (result.lexical, result.fusion, result.weights) == (words, "scores", {"terms": 0.5})
    assert (result.documents, result.queries, result.engine) == (4, 3, "fake")
    assert result.latency_ms.encode_p50 > 0
    assert log.still_open() == []


def test_each_leg_counts(tmp_path: Path, data: Path) -> None:
    """A leg that finds nonsense spoils what the other alone would have measured, so both were asked."""

    class Contrary(WordEncoder):
        """Puts every query among other words."""

        def encode(self, texts: Sequence[str], role: Role, *, timeout: float | None = None) -> Vectors:
            return super().encode(["folders" if role == "query" else text for text in texts], role)

    sound = ConfiguredEvaluation(data=data, config=project(tmp_path / "sound")).run()
    fakes = both() | {"terms": Contrary()}
    weights = SearchSettings(weights={"terms": 50.0})
    spoilt = ConfiguredEvaluation(data=data, config=configured(tmp_path / "spoilt", fakes, search=weights)).run()
    assert spoilt.metrics["nDCG@10"] < sound.metrics["nDCG@10"]


def test_the_documents_must_be_those_of_the_data(tmp_path: Path, data: Path) -> None:
    config = project(tmp_path)
    store = config.backend.open().open(collection_of(config))
    encoded = {name: fake.encode(["something else"] * 2, "document") for name, fake in both().items()}
    store.upsert(rows(encoded, {"copy": "something else", "more": "something else"}))
    store.delete([store.heads(["walk"])["walk"]])
    with pytest.raises(WrongUse) as refusal:
        ConfiguredEvaluation(data=data, config=config).run()
    told = str(refusal.value)
    assert "collection 'docs' does not hold the 4 documents of" in told
    assert "1 are not in it (walk); 1 are in it only (more); 1 have another text there (copy)" in told
    assert "Ingest exactly" in told


def test_a_document_in_several_chunks_is_compared_whole_and_found_once(tmp_path: Path, data: Path) -> None:
    config = configured(tmp_path, {"dense": HashEncoder()}, search=SearchSettings(of_document="first"))
    store = config.backend.open().open(collection_of(config))
    parts = ("copy a file ", "to another place")
    encoded = HashEncoder().encode(parts, "document")
    cut = rows({"dense": encoded}, {"copy": parts[0], "c": parts[1]})
    store.upsert([cut[0], replace(cut[1], id="copy", chunk=1, fields=cut[0].fields | {"text": parts[1]})])
    result = ConfiguredEvaluation(data=data, config=config).run()
    assert (result.documents, result.of_document) == (4, "first")
    assert result.metrics["R@100"] == 1.0


def test_an_answer_that_lacks_a_leg_is_not_measured(tmp_path: Path, data: Path) -> None:
    log = Log()
    config = project(tmp_path, log)
    log.failures["terms"] = OSError(5, "gone")
    with pytest.raises(Stop, match=r"query 'q1' was not answered by all legs: no terms leg: .* Nothing was measured"):
        ConfiguredEvaluation(data=data, config=config).run()
    assert log.still_open() == []


def test_a_result_is_a_baseline_for_the_next(tmp_path: Path, data: Path) -> None:
    config = project(tmp_path)
    first = ConfiguredEvaluation(data=data, config=config).run()
    first.write(tmp_path / "first.json")
    assert Result.read(tmp_path / "first.json").metrics == first.metrics
    second = ConfiguredEvaluation(data=data, config=config, baseline=tmp_path / "first.json").run()
    assert second.comparison is not None
    assert second.comparison.measures["nDCG@10"].mean == 0.0


def test_a_tower_or_a_configuration_is_to_be_given(run: Run, data: Path, tmp_path: Path) -> None:
    assert run("eval", data).code == 2
    assert run("eval", data, "--tower", "t", "--config", "c").code == 2
    assert "give --tower" in " ".join(run("eval", data).err.split())
    for option in (("--query-tower", "q"), ("--keep", "k.npz"), ("--engine", "torch"), ("--threads", "2")):
        refused = run("eval", data, "--config", "c", *option)
        assert refused.code == 2
        assert "leave --query-tower, --engine, --server, --threads and --keep out" in " ".join(refused.err.split())


def test_from_the_command_line_with_a_real_tower(run: Run, data: Path, towers: Path, tmp_path: Path) -> None:
    config = tmp_path / "bartizan.toml"
    config.write_text(
        f"""
        collection = {{ name = "tasks" }}
        spaces.dense = {{ document_tower = "{towers / "document"}", query_tower = "{towers / "query"}" }}
        encoders.document = {{ engine = "torch" }}
        encoders.query = {{ engine = "torch" }}
        backend = {{ uri = "index.db", lexical = "words" }}
        source = {{ path = "{data / "corpus.jsonl"}" }}
        """,
        encoding="utf-8",
    )
    assert run("ingest", config).code == 0
    finished = run("eval", data, "--config", config, "--out", tmp_path / "result.json")
    assert finished.code == 0, finished.err
    assert "nDCG@10" in finished.out
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["collection"], result["documents"], result["lexical"]) == ("tasks", 4, True)
    assert result["tower_id"] != result["query_tower_id"]
    assert result["legs"]["dense"]["space_id"] == result["space_id"] == result["tower_id"]
