"""`bartizan eval` from the command line, with small real towers; every refusal comes before anything is encoded."""

import json
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from bartizan_connector.__main__ import main
from bartizan_connector.spec import SPEC_FILE, RoleSpec, TowerSpec
from bartizan_encoders.local import TorchEncoder
from bartizan_encoders.tower import Design, Tower
from bartizan_encoders.weights import WEIGHTS_FILE
from bartizan_training.beir import BeirData
from bartizan_training.measuring import measure
from bartizan_training.results import Result
from tests.judged import WORDS, write_collection


class Finished(NamedTuple):
    """What a command left on the terminal."""

    code: int
    out: str
    err: str


Run = Callable[..., Finished]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """`bartizan` with these words."""

    def bartizan(*words: object) -> Finished:
        code = 0
        try:
            main([str(word) for word in words])
        except SystemExit as ended:
            code = int(ended.code or 0)
        printed = capsys.readouterr()
        return Finished(code, printed.out, printed.err)

    return bartizan


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for each other cost a tiny model ten times what it computes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def towers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`document`; `query`, cut out of it and aligned to its space; `stranger`, of a space of its own; `broken`: NaN."""
    folder = tmp_path_factory.mktemp("towers")
    document = tiny(seed=1)
    document.save(folder / "document")
    query = document.cut([0])
    query.spec = query.spec.aligned_to(document.spec)
    query.save(folder / "query")
    tiny(seed=2).save(folder / "stranger")
    broken = tiny(seed=1)
    with torch.no_grad():
        next(broken.parameters()).fill_(float("nan"))
    broken.save(folder / "broken")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    generator = np.random.default_rng(3)
    corpus = {f"d{number}": " ".join(generator.choice(WORDS, size=5)) for number in range(40)}
    queries = {f"q{number}": " ".join(generator.choice(WORDS, size=2)) for number in range(12)}
    qrels = {query: {f"d{id}": int(id % 3) for id in generator.choice(40, size=6, replace=False)} for query in queries}
    half = dict(list(qrels.items())[:6])
    return write_collection(tmp_path_factory.mktemp("data") / "larder", corpus, queries, test=qrels, dev=half)


def tiny(*, seed: int) -> Tower:
    vocabulary = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3} | {word: 4 + n for n, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    architecture = {
        "model_type": "bert",
        "vocab_size": len(vocabulary),
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 16,
    }
    roles = {"query": RoleSpec(max_tokens=16), "document": RoleSpec(max_tokens=6)}
    torch.manual_seed(seed)
    return Tower.fresh(architecture, tokenizer.to_str(), Design(name=f"tiny-{seed}", roles=roles))


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


@pytest.mark.parametrize("change", ["documents", "tower", "engine"])
def test_kept_vectors_of_something_else_are_made_anew(
    run: Run, data: Path, towers: Path, tmp_path: Path, change: str
) -> None:
    keep = ("--keep", tmp_path / "vectors.npz")
    run("eval", data, "--tower", towers / "document", "--engine", "torch", *keep)
    tower, engine, folder = towers / "document", "torch", shutil.copytree(data, tmp_path / "larder")
    if change == "documents":
        (folder / "corpus.jsonl").write_text((folder / "corpus.jsonl").read_text().replace("apple", "bread"))
    tower = towers / "stranger" if change == "tower" else tower
    engine = "onnx" if change == "engine" else engine
    words = ("eval", folder, "--tower", tower, "--engine", engine)
    changed = run(*words, *keep, "--out", tmp_path / "kept.json")
    assert "larder: documents" in changed.err
    run(*words, "--out", tmp_path / "afresh.json")
    assert Result.read(tmp_path / "kept.json").per_query == Result.read(tmp_path / "afresh.json").per_query


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
    assert "cannot write the result" in finished.err
    assert "No space left on device" in finished.err
    assert (tmp_path / "result.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]
