"""ScalingNote from a causal language model to a student of another make: one space from training to search."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from bartizan_connector.__main__ import main
from bartizan_connector.base.errors import WrongUse
from bartizan_connector.space.spec import TowerSpec
from bartizan_encoders.local import TorchEncoder
from bartizan_encoders.weights import read_weights
from bartizan_training.data.collections import BeirData
from bartizan_training.dry_run import forecast
from bartizan_training.evaluate.evaluation import Evaluation
from bartizan_training.loop import train
from bartizan_training.recipe import Recipe, shipped
from bartizan_training.settings import Published
from bartizan_training.stages.contrastive import Contrastive
from bartizan_training.stages.distil_query import DistilQuery
from bartizan_training.stages.refine import Refine
from bartizan_triton.export import export_tower
from benchmarks.collections import data_folder
from tests.encoders import published
from tests.needs import unavailable
from tests.training import toy

RECIPE = """
name = "scaled"
[tower]
source = "llama"
layers = [0]
pooling = "last"
query_prefix = "query: "
document_prefix = "passage: "
max_tokens = 48
[[steps]]
kind = "contrastive"
tied = false
steps = 2
batch_size = 8
learning_rate = 1e-3
lora = { rank = 2, alpha = 4.0 }
data = { path = "data" }
[[steps]]
kind = "distil_query"
student = { source = "bert", pooling = "cls", max_tokens = 16 }
steps = 3
batch_size = 8
learning_rate = 1e-3
texts = [{ kind = "queries", path = "data", split = "train" }]
"""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run from two published models with two tokenizers."""
    folder = tmp_path_factory.mktemp("bench")
    torch.set_num_threads(1)
    toy.collection(folder / "data", queries=40)
    published.hugging_face(folder / "llama", "llama", head=True, most=64)
    published.hugging_face(folder / "bert", hidden_size=24)
    text = RECIPE.replace('"llama"', f'"{folder / "llama"}"').replace('"bert"', f'"{folder / "bert"}"')
    (folder / "recipe.toml").write_text(text, encoding="utf-8")
    train(Recipe.load(folder / "recipe.toml"), folder / "run")
    return folder


@pytest.mark.packaging
def test_the_student_of_another_make_joins_the_documents_space(bench: Path) -> None:
    document, query = (TowerSpec.read(bench / "run/towers" / role) for role in ("document", "query"))
    assert query.space_id == document.space_id == document.tower_id
    assert query.tokenizer_hash != document.tokenizer_hash
    assert (query.dim, query.pooling, query.head) == (document.dim, "cls", "linear")
    assert (set(query.roles), query.role("query").max_tokens) == ({"query"}, 16)


def test_the_document_tower_is_not_touched_by_the_distillation(bench: Path) -> None:
    folders = toy.towers_of(bench / "run", "contrastive"), bench / "run/towers"
    before, after = (read_weights(folder / "document") for folder in folders)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_both_models_are_imported_once_and_found_again(bench: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(list(bench.glob("run/artefacts/start-towers/*"))) == 2
    monkeypatch.setattr("bartizan_training.starting.import_tower", None)
    train(Recipe.load(bench / "recipe.toml"), bench / "run", resume=True)
    noted = Recipe.load(bench / "run/recipe.toml")
    assert set(noted.identities or {}) == {"tower", "distil_query.student"}


def test_a_dry_run_knows_both_models(bench: Path) -> None:
    contrast, distil = forecast(Recipe.load(bench / "recipe.toml"))
    assert (contrast.steps, distil.steps, distil.examples) == (2, 3, 30)
    assert contrast.tokens > 2 * 8 * len("query: passage: ")  # the language model's tokens are bytes
    assert distil.seconds
    assert contrast.seconds


@pytest.mark.packaging
def test_such_a_pair_is_exported_ingested_searched_and_judged(
    bench: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for role in ("document", "query"):
        export_tower(bench / "run/towers" / role, tmp_path / role, "fp32")
    (tmp_path / "bartizan.toml").write_text(
        'collection = { name = "things" }\nspaces.dense = { document_tower = "document", query_tower = "query" }\n'
        f'backend = {{ uri = "index.db" }}\nsource = {{ path = "{bench / "data/corpus.jsonl"}" }}\n',
        encoding="utf-8",
    )
    config = str(tmp_path / "bartizan.toml")
    text = json.loads((bench / "data/queries.jsonl").read_text().splitlines()[0])["text"]
    for words in (["ingest", config], ["search", text, "--config", config, "--json"]):
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert not ended.value.code
    hits = json.loads(capsys.readouterr().out)["results"]
    data = BeirData.read(bench / "data")
    encoders = {role: TorchEncoder.open(bench / "run/towers" / role) for role in ("document", "query")}
    documents = np.asarray(encoders["document"].encode([*data.corpus.values()], "document").values)
    scores = documents @ np.asarray(encoders["query"].encode([text], "query").values)[0]
    best = [list(data.corpus)[place] for place in np.argsort(-scores)[: len(hits)]]
    assert [hit["id"] for hit in hits] == best
    judged = Evaluation(data=bench / "data", tower=tmp_path / "document", query_tower=tmp_path / "query").run()
    asked = [data.queries[id] for id in data.qrels("test")]
    found = np.argsort(-np.asarray(encoders["query"].encode(asked, "query").values) @ documents.T, axis=1)[:, :10]
    answers = [{list(data.corpus)[place] for place in row} for row in found]
    hit = [bool(answer & set(good)) for answer, good in zip(answers, data.qrels("test").values(), strict=True)]
    assert judged.metrics["R@10"] == pytest.approx(np.mean(hit))


def test_the_large_recipe_is_the_papers_method_with_our_numbers() -> None:
    recipe = Recipe.load(shipped()["scalingnote"])
    warm, _, towers, student, refined = recipe.steps
    assert isinstance(recipe.tower, Published)
    assert (recipe.tower.source, recipe.tower.pooling, recipe.tower.similarity) == ("Qwen/Qwen2.5-7B", "last", "cosine")
    assert recipe.tower.query_prefix != recipe.tower.document_prefix
    for step in (warm, towers):
        assert isinstance(step, Contrastive)
        assert (step.tied, step.loss.mask_known, step.loss.mask_margin) == (False, True, 0.1)
    assert isinstance(towers, Contrastive)
    assert (towers.negatives, towers.document, towers.query) == ("hard", "start.document", "start.query")
    assert isinstance(student, DistilQuery)
    assert isinstance(student.student, Published)
    assert (len(student.student.layers or ()), student.loss.w_cos, student.loss.w_mse) == (4, 1.0, 1.0)
    assert isinstance(refined, Refine)


@pytest.mark.data
@pytest.mark.timeout(900)
def test_the_small_recipe_goes_from_the_real_language_model_to_two_towers(tmp_path: Path) -> None:
    """As docs/train.md begins, as a try-out of one step each; the student is of another make here."""
    try:
        data = data_folder() / "scifact"
    except WrongUse as missing:
        unavailable(str(missing))
    recipe = tmp_path / "recipe.toml"
    text = shipped()["scalingnote-small"].read_text(encoding="utf-8")
    recipe.write_text(text.replace("\nlayers = [0, 1]\n", '\nstudent = "minilm"\n'), encoding="utf-8")
    words = ["train", str(recipe), "--data", str(data), "--out", str(tmp_path / "run"), "--limit", "1"]
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert not ended.value.code
    document, query = (TowerSpec.read(tmp_path / "run/towers" / role) for role in ("document", "query"))
    assert (document.dim, query.dim, query.space_id) == (576, 576, document.tower_id)
    assert query.tokenizer_hash != document.tokenizer_hash
    text = "Vitamin D lowers the risk of fractures."
    vectors = TorchEncoder.open(tmp_path / "run/towers/query").encode([text], "query")
    assert np.linalg.norm(np.asarray(vectors.values)) == pytest.approx(1)
