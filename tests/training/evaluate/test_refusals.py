"""What `bartizan eval` refuses, before anything is encoded or written, and what it leaves behind when it fails."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bartizan_connector.space.spec import SPEC_FILE, TowerSpec
from bartizan_encoders.tower import Tower
from bartizan_encoders.weights import WEIGHTS_FILE
from tests.training.evaluate.conftest import Finished, Run


class TestRefusals:
    """Whatever cannot mean anything is refused with the way out, before anything is encoded or written."""

    def refused(self, finished: Finished, code: int, message: str) -> None:
        assert finished.code == code
        assert message in finished.err
        assert finished.out == ""
        assert "larder: documents" not in finished.err

    def test_towers_of_two_spaces(self, run: Run, data: Path, towers: Path, tmp_path: Path) -> None:
        pair = ("--tower", towers / "document", "--query-tower", towers / "stranger")
        finished = run("eval", data, *pair, "--engine", "torch", "--out", tmp_path / "result.json")
        self.refused(finished, 3, "query tower 'tiny-2' and document tower 'tiny-1' do not belong together")
        for name in ("document", "stranger"):
            assert TowerSpec.read(towers / name).space_id in finished.err
        assert not (tmp_path / "result.json").exists()

    def test_a_spec_edited_by_hand(self, run: Run, data: Path, towers: Path, tmp_path: Path) -> None:
        shutil.copytree(towers / "document", tmp_path / "edited")
        spec = tmp_path / "edited" / SPEC_FILE
        spec.write_text(spec.read_text().replace('"pooling": "mean"', '"pooling": "cls"'))
        self.refused(run("eval", data, "--tower", tmp_path / "edited", "--engine", "torch"), 3, "was changed after it")

    def test_weights_that_are_cut_short(self, run: Run, data: Path, towers: Path, tmp_path: Path) -> None:
        shutil.copytree(towers / "document", tmp_path / "cut")
        weights = tmp_path / "cut" / WEIGHTS_FILE
        weights.write_bytes(weights.read_bytes()[:-100])
        self.refused(run("eval", data, "--tower", tmp_path / "cut", "--engine", "torch"), 1, "is damaged")

    def test_a_tower_that_does_not_encode_documents(self, run: Run, data: Path, towers: Path, tmp_path: Path) -> None:
        query = Tower.load(towers / "query")
        query.spec = query.spec.model_copy(update={"roles": {"query": query.spec.roles["query"]}})
        query.save(tmp_path / "query-only")
        finished = run("eval", data, "--tower", tmp_path / "query-only", "--engine", "torch")
        self.refused(finished, 2, "encodes query only, but was asked for document vectors")

    def test_a_folder_that_is_no_tower(self, run: Run, data: Path, tmp_path: Path) -> None:
        self.refused(run("eval", data, "--tower", tmp_path), 2, "is not a tower: it has no tower.json")

    def test_an_unknown_engine(self, run: Run, data: Path, towers: Path) -> None:
        finished = run("eval", data, "--tower", towers / "document", "--engine", "abacus")
        self.refused(finished, 2, "unknown engine 'abacus'; known: onnx, torch")

    def test_an_unknown_split(self, run: Run, data: Path, towers: Path) -> None:
        finished = run("eval", data, "--tower", towers / "document", "--split", "train")
        self.refused(finished, 2, "has no split 'train'; it has dev, test")

    def test_data_that_is_not_there(self, run: Run, towers: Path, tmp_path: Path) -> None:
        finished = run("eval", tmp_path / "nowhere", "--tower", towers / "document")
        self.refused(finished, 2, "nowhere is not a folder; give one in BEIR layout")

    def test_relevance_from_nothing(self, run: Run, data: Path, towers: Path) -> None:
        finished = run("eval", data, "--tower", towers / "document", "--relevant-from", "0")
        self.refused(finished, 2, "a document is relevant from grade 1 or above")

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (None, "cannot read the result"),
            ("{", "is not a result of 'bartizan eval': the file: Invalid JSON"),
            ('{"collection": "larder"}', "is not a result of 'bartizan eval': collection_digest: Field required"),
        ],
    )
    def test_a_baseline_that_is_no_result(
        self, run: Run, data: Path, towers: Path, tmp_path: Path, content: str | None, message: str
    ) -> None:
        baseline = tmp_path / "baseline.json"
        if content:
            baseline.write_text(content)
        finished = run("eval", data, "--tower", towers / "document", "--baseline", baseline)
        self.refused(finished, 2, message)

    def test_a_baseline_of_another_task(self, run: Run, data: Path, towers: Path, tmp_path: Path) -> None:
        words = ("--tower", towers / "document", "--engine", "torch")
        baseline = tmp_path / "baseline.json"
        run("eval", data, *words, "--out", baseline)
        finished = run("eval", data, *words, "--split", "dev", "--baseline", baseline)
        self.refused(finished, 2, "the baseline was measured on larder/test, this run is on larder/dev")
        changed = shutil.copytree(data, tmp_path / "larder")
        with (changed / "corpus.jsonl").open("a") as corpus:
            corpus.write('{"_id": "d99", "text": "honey"}\n')
        finished = run("eval", changed, *words, "--baseline", baseline)
        self.refused(finished, 2, "of larder/test are not what the baseline was measured on")

    @pytest.mark.parametrize(
        ("damage", "message"),
        [
            (lambda result: result["per_query"]["q3"].pop("R@10"), "the baseline has no R@10 for query 'q3'"),
            (lambda result: result["per_query"].pop("q3"), "the baseline lacks query 'q3'"),
            (lambda result: result["per_query"].update(q99={}), "the baseline also has query 'q99'"),
        ],
    )
    def test_a_baseline_that_lost_a_value(
        self, run: Run, data: Path, towers: Path, tmp_path: Path, damage: Callable[[Any], object], message: str
    ) -> None:
        words = ("eval", data, "--tower", towers / "document", "--engine", "torch")
        baseline = tmp_path / "baseline.json"
        run(*words, "--out", baseline)
        result = json.loads(baseline.read_text())
        damage(result)
        baseline.write_text(json.dumps(result))
        self.refused(run(*words, "--baseline", baseline), 2, message)

    @pytest.mark.parametrize(
        ("split", "option", "message"),
        [
            ("none", (), "its highest grade is 0, and a document is relevant from 1; give a split that judges some"),
            ("test", ("--relevant-from", "5"), "its highest grade is 2, and a document is relevant from 5; give --rel"),
        ],
    )
    def test_judgements_by_which_nothing_is_relevant(
        self, run: Run, data: Path, towers: Path, tmp_path: Path, split: str, option: tuple[str, ...], message: str
    ) -> None:
        changed = shutil.copytree(data, tmp_path / "larder")
        (changed / "qrels/none.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t0\nq2\td1\t-1\n")
        finished = run("eval", changed, "--tower", towers / "document", "--split", split, *option)
        self.refused(finished, 2, message)

    def test_a_place_where_no_result_can_be_written(self, run: Run, data: Path, towers: Path, tmp_path: Path) -> None:
        words = ("eval", data, "--tower", towers / "document", "--engine", "torch", "--out")
        self.refused(run(*words, tmp_path), 2, "is a folder; give the JSON file to write")
        (tmp_path / "file").write_text("")
        self.refused(run(*words, tmp_path / "file" / "result.json"), 2, "is not a folder that you may write to")

    def test_a_file_that_holds_no_kept_vectors(self, run: Run, data: Path, towers: Path, tmp_path: Path) -> None:
        words = ("eval", data, "--tower", towers / "document", "--engine", "torch", "--keep")
        self.refused(run(*words, tmp_path), 2, "is a folder; give the file of vectors to write")
        for content in (b"", b"my notes", b"PK\x05\x06" + bytes(18)):
            (tmp_path / "notes").write_bytes(content)
            self.refused(run(*words, tmp_path / "notes"), 2, "holds no vectors that an evaluation kept")
            assert (tmp_path / "notes").read_bytes() == content


def test_a_tower_that_gives_nan_is_refused_and_no_result_is_written(
    run: Run, data: Path, towers: Path, tmp_path: Path
) -> None:
    out = tmp_path / "result.json"
    finished = run("eval", data, "--tower", towers / "broken", "--engine", "torch", "--out", out)
    assert finished.code == 2
    assert "hold NaN or infinity; the tower is broken" in finished.err
    assert not out.exists()


def test_a_full_disk_leaves_the_old_result_in_place(
    run: Run, data: Path, towers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("eval", data, "--tower", towers / "document", "--engine", "torch", "--out", tmp_path / "result.json")
    run(*words)
    before = (tmp_path / "result.json").read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    finished = run(*words)
    assert finished.code == 1
    assert f"no space left for {tmp_path / 'result.json'}; nothing was changed: free some" in finished.err
    assert (tmp_path / "result.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]
