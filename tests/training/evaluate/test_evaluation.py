"""`bartizan eval` from the command line, with small real towers: what it measures, keeps and compares."""

import errno
import json
import os
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

from bartizan_connector.__main__ import main
from bartizan_connector.space.spec import SPEC_FILE, TowerSpec
from bartizan_encoders.local import TorchEncoder
from bartizan_encoders.weights import WEIGHTS_FILE
from bartizan_training.data.collections import BeirData
from bartizan_training.evaluate.measuring import measure
from bartizan_training.evaluate.results import Result
from tests.judged import WORDS, write_collection
from tests.training.evaluate.conftest import Run


def test_the_result_holds_what_the_design_promises(run: Run, data: Path, towers: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "result.json"
    finished = run("eval", data, "--tower", towers / "document", "--engine", "torch", "--out", out)
    assert finished.code == 0
    result = json.loads(out.read_text())
    spec = TowerSpec.read(towers / "document")
    expected = {"collection": "larder", "split": "test", "engine": "torch", "tower_id": spec.tower_id}
    expected |= {"space_id": spec.space_id, "query_tower_id": spec.tower_id, "documents": 40, "queries": 12}
    assert {key: result[key] for key in expected} == expected
    assert list(result["metrics"]) == ["nDCG@10", "RR@10", "AP@100", "R@10", "R@100"]
    assert result["per_query"].keys() == {f"q{number}" for number in range(12)}
    assert result["latency_ms"]["encode_p50"] > 0
    assert result["truncated"] == {"documents": 40, "queries": 0}
    assert result["versions"].keys() >= {"python", "bartizan-search", "torch", "ir-measures"}
    assert result["date"].endswith("+00:00")
    assert "nDCG@10" in finished.out
    assert f"{result['metrics']['nDCG@10']:.4f}" in finished.out
    assert finished.err.count("larder: documents") == 2  # when it begins and when it ends


def by_sorting(data: Path, document: Path, query: Path, split: str = "test") -> dict[str, float]:
    """The measures when every document is sorted by its score, in float64, one query at a time."""
    read = BeirData.read(data)
    ids = sorted(read.corpus)
    texts = [read.corpus[id] for id in ids]
    documents = np.asarray(TorchEncoder.open(document).encode(texts, "document").values, dtype=np.float64)
    encoder = TorchEncoder.open(query)
    answers = {}
    for name, text in read.queries.items():
        vector = np.asarray(encoder.encode([text], "query").values[0], dtype=np.float64)
        scores = np.round(documents @ vector, 5)
        answers[name] = sorted(ids, key=lambda id: (-scores[ids.index(id)], id))
    return measure(read.qrels(split), answers).metrics


def test_the_command_of_a_result_can_be_typed_again(
    data: Path, towers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["eval", str(data), "--tower", str(towers / "document"), "--engine", "torch"]
    words += ["--out", str(tmp_path / "a result.json")]
    monkeypatch.setattr("sys.argv", ["/somewhere/bartizan_connector/__main__.py", *words])
    with pytest.raises(SystemExit):
        main()
    assert shlex.split(Result.read(tmp_path / "a result.json").command) == ["bartizan", *words]


def test_the_measures_are_those_of_sorting_every_document_by_its_score(
    run: Run, data: Path, towers: Path, tmp_path: Path
) -> None:
    run("eval", data, "--tower", towers / "document", "--engine", "torch", "--out", tmp_path / "result.json")
    expected = by_sorting(data, towers / "document", towers / "document")
    assert Result.read(tmp_path / "result.json").metrics == pytest.approx(expected)


def test_json_prints_what_the_file_holds_and_nothing_else(run: Run, data: Path, towers: Path, tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    finished = run("eval", data, "--tower", towers / "document", "--engine", "torch", "--out", out, "--json")
    assert json.loads(finished.out) == json.loads(out.read_text())


def test_a_query_tower_answers_in_the_document_towers_space(run: Run, data: Path, towers: Path, tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    pair = ("--tower", towers / "document", "--query-tower", towers / "query")
    assert run("eval", data, *pair, "--engine", "torch", "--split", "dev", "--out", out).code == 0
    result, query = Result.read(out), TowerSpec.read(towers / "query")
    assert (result.query_tower_id, result.query_tower) == (query.tower_id, query.name)
    assert result.space_id == result.tower_id == query.space_id
    assert (result.split, result.queries) == ("dev", 6)
    assert result.metrics == pytest.approx(by_sorting(data, towers / "document", towers / "query", "dev"))
    assert result.metrics != pytest.approx(by_sorting(data, towers / "document", towers / "document", "dev"))


def test_onnx_judges_like_torch_and_exports_on_the_way(run: Run, data: Path, towers: Path, tmp_path: Path) -> None:
    pair = ("--tower", towers / "document", "--query-tower", towers / "query")
    torched, exported = tmp_path / "torch.json", tmp_path / "onnx.json"
    assert run("eval", data, *pair, "--engine", "torch", "--out", torched).code == 0
    finished = run("eval", data, *pair, "--engine", "onnx", "--out", exported)
    assert finished.code == 0
    assert "exporting tower 'tiny-1' to ONNX" in finished.err
    assert Result.read(exported).metrics == pytest.approx(Result.read(torched).metrics)
    assert Result.read(exported).tower_id == Result.read(torched).tower_id
    assert sorted(path.name for path in (towers / "document").iterdir()) == sorted(
        [SPEC_FILE, WEIGHTS_FILE, "config.json", "tokenizer.json"]
    )


def test_an_export_is_judged_as_it_is(run: Run, data: Path, towers: Path, tmp_path: Path) -> None:
    assert run("export", towers / "document", "--out", tmp_path / "export").code == 0
    finished = run("eval", data, "--tower", tmp_path / "export")
    assert finished.code == 0
    assert "exporting" not in finished.err
    refused = run("eval", data, "--tower", tmp_path / "export", "--engine", "torch")
    assert refused.code == 2
    assert "is an export without torch weights: use --engine onnx" in refused.err


def test_kept_vectors_spare_the_documents_and_change_no_answer(
    run: Run, data: Path, towers: Path, tmp_path: Path
) -> None:
    words = ("eval", data, "--tower", towers / "document", "--engine", "torch")
    keep, out = ("--keep", tmp_path / "kept" / "vectors.npz"), tmp_path / "result.json"
    assert "larder: documents" in run(*words, *keep).err
    again = run(*words, *keep, "--query-tower", towers / "query", "--out", out)
    assert again.code == 0
    assert "larder: documents" not in again.err
    run(*words, "--query-tower", towers / "query", "--out", tmp_path / "afresh.json")
    result, afresh = Result.read(out), Result.read(tmp_path / "afresh.json")
    assert (result.per_query, result.truncated) == (afresh.per_query, afresh.truncated)


@pytest.mark.packaging
@pytest.mark.parametrize("change", ["tower", "engine"])
def test_kept_vectors_of_another_tower_or_engine_are_made_anew(
    run: Run, data: Path, towers: Path, tmp_path: Path, change: str
) -> None:
    keep = ("--keep", tmp_path / "vectors.npz")
    run("eval", data, "--tower", towers / "document", "--engine", "torch", *keep)
    tower = towers / "stranger" if change == "tower" else towers / "document"
    words = ("eval", data, "--tower", tower, "--engine", "onnx" if change == "engine" else "torch")
    changed = run(*words, *keep, "--out", tmp_path / "kept.json")
    assert "larder: documents" in changed.err
    run(*words, "--out", tmp_path / "afresh.json")
    assert Result.read(tmp_path / "kept.json").per_query == Result.read(tmp_path / "afresh.json").per_query


def test_kept_vectors_of_other_documents_are_never_overwritten(
    run: Run, data: Path, towers: Path, tmp_path: Path
) -> None:
    file = tmp_path / "vectors.npz"
    words = ("--tower", towers / "document", "--engine", "torch", "--keep", file)
    run("eval", data, *words)
    before, other = file.read_bytes(), shutil.copytree(data, tmp_path / "larder")
    (other / "corpus.jsonl").write_text((other / "corpus.jsonl").read_text().replace("apple", "bread"))
    refused = run("eval", other, *words)
    assert (refused.code, file.read_bytes()) == (2, before)
    assert f"{file} keeps the vectors of other documents than these, and stays as it is" in refused.err
    assert "larder: documents" not in refused.err, "told before anything is encoded"


def full_disk(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_told_after_the_table(
    run: Run, data: Path, towers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "write_bytes", full_disk)
    words = ("eval", data, "--tower", towers / "document", "--engine", "torch")
    finished = run(*words, "--out", tmp_path / "result.json")
    assert finished.code == 1
    assert "nDCG@10" in finished.out
    assert f"no space left for {tmp_path / 'result.json'}" in finished.err


def test_vectors_that_cannot_be_kept_cost_no_judgement(
    run: Run, data: Path, towers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(np, "savez", full_disk)
    words = ("eval", data, "--tower", towers / "document", "--engine", "torch")
    finished = run(*words, "--keep", tmp_path / "vectors.npz")
    assert finished.code == 0
    assert "nDCG@10" in finished.out
    assert "the documents' vectors were not kept: no space left" in finished.err
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def arguments(tmp_path: Path) -> Path:
    """Queries that are documents, as ArguAna's: each text finds itself first, and its judgement names another one."""
    texts = {f"a{number}": f"{WORDS[number]} {WORDS[(number + 1) % 8]}" for number in range(8)}
    qrels = {id: {f"a{(number + 1) % 8}": 1} for number, id in enumerate(texts)}
    return write_collection(tmp_path / "arguments", texts, texts, test=qrels)


def test_a_document_with_the_querys_own_id_is_no_answer(
    run: Run, arguments: Path, towers: Path, tmp_path: Path
) -> None:
    out = tmp_path / "result.json"
    finished = run("eval", arguments, "--tower", towers / "document", "--engine", "torch", "--out", out)
    assert finished.code == 0
    assert "8 documents with a query's own id are no answers to it" in finished.out
    result, read, encoder = Result.read(out), BeirData.read(arguments), TorchEncoder.open(towers / "document")
    ids = sorted(read.corpus)
    documents = np.asarray(encoder.encode([read.corpus[id] for id in ids], "document").values, dtype=np.float64)
    answers = {}
    for query, text in read.queries.items():
        scores = np.round(documents @ np.asarray(encoder.encode([text], "query").values[0], dtype=np.float64), 5)
        answers[query] = sorted({*ids} - {query}, key=lambda id: (-scores[ids.index(id)], id))
    assert result.metrics == pytest.approx(measure(read.qrels("test"), answers).metrics)
    assert result.own_ids == 8


def test_a_baseline_that_counted_them_is_refused(run: Run, arguments: Path, towers: Path, tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    words = ("eval", arguments, "--tower", towers / "document", "--engine", "torch")
    run(*words, "--out", out)
    older = {key: value for key, value in json.loads(out.read_text()).items() if key != "own_ids"}
    out.write_text(json.dumps(older))
    refused = run(*words, "--baseline", out)
    assert refused.code == 2
    assert "8 queries of arguments/test have such a document; measure the baseline again" in refused.err


def test_a_run_is_compared_with_a_baseline_query_by_query(run: Run, data: Path, towers: Path, tmp_path: Path) -> None:
    before, after = tmp_path / "before.json", tmp_path / "after.json"
    torch_engine = ("--engine", "torch")
    run("eval", data, "--tower", towers / "document", *torch_engine, "--out", before)
    finished = run("eval", data, "--tower", towers / "stranger", *torch_engine, "--baseline", before, "--out", after)
    assert finished.code == 0
    result, baseline = Result.read(after), Result.read(before)
    assert result.comparison is not None
    assert result.comparison.baseline_tower_id == baseline.tower_id
    for name, found in result.comparison.measures.items():
        assert found.mean == pytest.approx(result.metrics[name] - baseline.metrics[name])
        assert found.wins + found.ties + found.losses == 12
        assert f"{found.wins}/{found.ties}/{found.losses}" in finished.out
    assert "95 % interval" in finished.out


def test_a_run_compared_with_itself_is_no_better(run: Run, data: Path, towers: Path, tmp_path: Path) -> None:
    words = ("eval", data, "--tower", towers / "document", "--engine", "torch")
    run(*words, "--out", tmp_path / "before.json")
    finished = run(*words, "--baseline", tmp_path / "before.json", "--json")
    for found in json.loads(finished.out)["comparison"]["measures"].values():
        assert (found["mean"], found["p"], found["ties"]) == (0.0, 1.0, 12)


def test_relevance_can_begin_at_a_higher_grade(run: Run, data: Path, towers: Path, tmp_path: Path) -> None:
    words = ("eval", data, "--tower", towers / "document", "--engine", "torch")
    run(*words, "--out", tmp_path / "one.json")
    run(*words, "--relevant-from", "2", "--out", tmp_path / "two.json")
    one, two = Result.read(tmp_path / "one.json"), Result.read(tmp_path / "two.json")
    assert two.metrics["nDCG@10"] == one.metrics["nDCG@10"]
    assert "R(rel=2)@10" in two.metrics
    finished = run(*words, "--baseline", tmp_path / "two.json")
    assert finished.code == 2
    assert "the baseline has no RR@10, AP@100, R@10, R@100; it was measured with --relevant-from 2" in finished.err
