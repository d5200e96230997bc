"""TAS-Balanced from end to end on toy towers: it learns, its loss is the method's, and a run killed goes on exactly."""

import json
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.space.spec import Role, TowerSpec
from bartizan_encoders.tower import Tower
from bartizan_training.data.collections import BeirData
from bartizan_training.data.scores import ScoreTable
from bartizan_training.data.triples import read_triples
from bartizan_training.loop import train
from bartizan_training.recipe import Recipe
from bartizan_training.stages.tas_balanced import TasBalanced
from bartizan_training.teachers.cross_encoder import CrossEncoder
from bartizan_training.teachers.late_interaction import LateInteraction
from tests.training import toy
from tests.training.toy import with_keys

LENGTHS = "query_tokens = 8\ndocument_tokens = 10\n"
SCORED = 'data = { kind = "tsv", file = "scores.tsv", path = "data", held_out = "data" }\n'
JUDGED = 'data = { kind = "judged", path = "data", negatives_per_query = 3 }\n'
TRAINED = "batch_size = 16\nlearning_rate = 3e-3\n" + LENGTHS
LATE = 'kind = "late_interaction"\nsteps = 120\ndim = 8\nquery_masks = 0\n' + TRAINED + SCORED
TOPICS = 'kind = "cluster"\nclusters = 4\n' + SCORED
TEACHERS = 'clusters = "cluster"\nin_batch_teacher = "late_interaction"\n'
TAS = 'kind = "tas_balanced"\nsteps = 120\npooling = "mean"\n' + TEACHERS + TRAINED + SCORED
CROSS = 'kind = "cross_encoder"\nsteps = 6\n' + TRAINED + JUDGED
SCORE = 'kind = "score"\nteacher = "cross_encoder"\n' + JUDGED


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tower, data, scores as the authors publish them, and a run of both stages on them in `run`."""
    folder = toy.bench(tmp_path_factory.mktemp("bench"))
    toy.write_scores(folder)
    torch.set_num_threads(1)
    train(Recipe.load(toy.recipe(folder, LATE, TOPICS, TAS)), folder / "run")
    return folder


def losses(run: Path, kind: str) -> list[float]:
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [record["loss"] for record in records if record["kind"] == kind]


@pytest.mark.packaging
def test_the_tower_learns_from_its_teachers_alone_and_finds_held_out_queries(bench: Path) -> None:
    before = toy.found_first(bench / "data", bench / "tower", bench / "tower")
    after = toy.found_first(bench / "data", bench / "run/towers/document", bench / "run/towers/query")
    for kind in ("late_interaction", "tas_balanced"):
        assert losses(bench / "run", kind)[-1] < 0.35 * losses(bench / "run", kind)[0]
    assert before < 0.1
    assert after > 0.5


def test_the_tower_is_one_for_both_roles_and_compared_by_products_that_are_not_normalised(bench: Path) -> None:
    document, query = (TowerSpec.read(bench / "run/towers" / role) for role in ("document", "query"))
    assert document == query
    assert (document.pooling, document.similarity, document.normalise) == ("mean", "dot", False)
    assert (document.role("query").max_tokens, document.role("document").max_tokens) == (8, 10)
    assert document.space is None
    assert Tower.load(bench / "run/towers/document").spec.name == "toy"


def test_what_the_recipe_leaves_out_is_as_in_the_paper() -> None:
    keys = {"kind": "tas_balanced", "steps": 1, "learning_rate": 7e-6, "in_batch_teacher": "late"}
    table = TasBalanced.model_validate(keys | {"data": {"kind": "tsv", "file": "x"}})
    assert (table.pooling, table.similarity, table.query_tokens, table.document_tokens) == ("cls", "dot", 30, 200)
    assert (table.margins, table.bins, table.rows_at_least, table.batch_size) == ("bins", 10, 2, 32)
    assert (table.loss.w_pair, table.loss.w_in_batch, table.loss.scale) == (1.0, 0.75, 1.0)


def stage(bench: Path, text: str):  # type: ignore[no-untyped-def]
    recipe = Recipe.load(toy.recipe(bench, LATE, TOPICS, text))
    table = recipe.steps[-1]
    assert isinstance(table, TasBalanced)
    run = bench / "run/artefacts"
    (teacher,), (clusters,) = run.glob("late_interaction-*/*"), run.glob("cluster-*/*")
    taken = {"document": bench / "tower", "in_batch_teacher": teacher, "clusters": clusters}
    torch.manual_seed(0)
    return table.stage(
        {key: path for key, path in taken.items() if getattr(table, key) or key == "document"}, toy.toy_place(bench)
    )


@pytest.mark.parametrize("weights", ["", "loss = { w_pair = 0.5, w_in_batch = 0.75, scale = 3.0 }"])
def test_the_loss_of_a_batch_is_the_double_loop_over_texts(bench: Path, weights: str) -> None:
    made = stage(bench, TAS + weights)
    how, triples = made._table.loss, made._triples
    rows = made._sampler.batch(5)
    tower, teacher = made.tower, made._teacher._model

    @lru_cache
    @torch.no_grad()
    def alone(text: str, role: Role) -> tuple[torch.Tensor, torch.Tensor]:
        """The tower's vector and the teacher's of each token, for one text without padding."""
        ids = torch.tensor([tower.tokens.encode([text], role)[0].ids])
        hidden = teacher.tower.hidden(ids, torch.ones_like(ids))
        return tower(ids, torch.ones_like(ids))[0].double(), teacher.tower.head(hidden)[0].double()

    def score(query: int, document: int) -> tuple[float, float]:
        """The tower's and the teacher's."""
        ours, theirs = zip(
            alone(triples.queries[query], "query"), alone(triples.documents[document], "document"), strict=True
        )
        return float(ours[0] @ ours[1]) * how.scale, float((theirs[0] @ theirs[1].T).amax(dim=1).sum())

    own = [(triples.query[row], triples.positive[row], triples.negative[row]) for row in rows]
    pair, others = [], ([], [])  # type: ignore[var-annotated]
    for i, (query, positive, negative) in enumerate(own):
        ours, theirs = score(query, positive)
        margin = float(triples.scores[0][rows[i]] - triples.scores[1][rows[i]])
        pair.append((ours - score(query, negative)[0] - margin) ** 2)
        for j, (_, *documents) in enumerate(own):
            for found, document in zip(others, documents, strict=True):
                if i != j:
                    s, t = score(query, document)
                    found.append(((ours - s) - (theirs - t)) ** 2)
    expected = how.w_pair * np.mean(pair) + how.w_in_batch * (np.mean(others[0]) + np.mean(others[1])) / 2
    assert made(made.batch(5)).item() == pytest.approx(expected, rel=1e-4)


def test_the_teacher_is_frozen_and_no_part_of_what_is_trained_or_saved(bench: Path) -> None:
    made = stage(bench, TAS)
    made(made.batch(0)).backward()
    teacher = made._teacher._model
    assert isinstance(teacher, LateInteraction)
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert not {id(p) for p in made.parameters()} & {id(p) for p in teacher.parameters()}
    assert all(p.grad is not None for p in made.parameters())
    assert not teacher.training


def test_a_batch_is_of_one_topic_and_of_no_test_query(bench: Path) -> None:
    made = stage(bench, TAS)
    data = BeirData.read(bench / "data")
    test = {data.queries[id] for id in data.qrels("test")}
    assert not test & set(made._triples.queries)
    for number in range(5):
        assert len(set(made._triples.query[made._sampler.batch(number)])) == 16


STEPS = (
    with_keys(CROSS, checkpoint_every=2, log_every=2, dropout=True),
    SCORE,
    with_keys(LATE, steps=4, checkpoint_every=2, log_every=2, scores="score", data=None) + "\n" + JUDGED,
    with_keys(TOPICS, data=None) + "\n" + JUDGED,
    with_keys(TAS, steps=6, checkpoint_every=2, log_every=2, scores="score", data=None) + "\n" + JUDGED,
)


def history(run: Path) -> list[dict[str, float]]:
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in record.items() if key != "tokens_per_second"} for record in records]


@pytest.fixture(scope="module")
def whole(bench: Path) -> Path:
    """A run of all steps that nothing has interrupted."""
    train(Recipe.load(toy.recipe(bench, *STEPS)), bench / "whole")
    return bench / "whole"


@pytest.mark.packaging
def test_a_run_killed_in_each_of_its_steps_ends_as_if_it_had_never_been(bench: Path, whole: Path) -> None:
    path = toy.recipe(bench, *STEPS)
    out = bench / "killed"
    for moment in (
        "steps/1-cross_encoder/checkpoints/step-00000002",
        "artefacts/cross_encoder-cross_encoder",
        "steps/3-late_interaction/checkpoints/step-00000002",
        "steps/5-tas_balanced/checkpoints/step-00000004",
    ):
        toy.train_and_kill(path, out, at=out / moment)
    train(Recipe.load(path), out, resume=True)
    for role in ("document", "query"):
        assert TowerSpec.read(out / "towers" / role) == TowerSpec.read(whole / "towers" / role)
    assert history(out) == history(whole)
    made = [{p.name for p in run.glob("artefacts/*/*") if p.name[0] != "."} for run in (out, whole)]
    assert made[0] == made[1]


@pytest.mark.packaging
def test_two_processes_train_what_one_trains(bench: Path) -> None:
    text = with_keys(TAS, steps=3, log_every=1)
    late = with_keys(LATE, steps=3, log_every=1)
    path = toy.recipe(bench, late, TOPICS, text)
    one, two = bench / "one", bench / "two"
    train(Recipe.load(path), one)
    toy.train_in_two_processes(path, two)
    for ours, theirs in zip(history(one), history(two), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-3)
        assert ours["gradient_norm"] == pytest.approx(theirs["gradient_norm"], rel=1e-2)


@pytest.mark.packaging
def test_the_scores_of_a_step_are_the_teachers_of_every_pair(bench: Path, whole: Path) -> None:
    (folder,) = (whole / "artefacts").glob("score-scores/*")
    assert {path.name for path in folder.iterdir()} == {"pairs.npy", "scores.npy", "made_from.json"}
    table = Recipe.load(toy.recipe(bench, *STEPS)).steps[1]
    triples = read_triples(table.data)  # type: ignore[union-attr]
    scores = ScoreTable.read(folder)
    assert np.isfinite(scores.find(triples.queries, triples.documents, triples.query, triples.negative)).all()
    both = [zip(triples.query, side, strict=True) for side in (triples.positive, triples.negative)]
    assert len(scores.pairs) == len({pair for side in both for pair in side})


def test_a_teacher_grows_out_of_a_tower_of_its_own(bench: Path, tmp_path: Path) -> None:
    toy.tower(bench / "one-layer", layers=1, seed=4)
    step = with_keys(CROSS, steps=1, backbone="one-layer")
    recipe = Recipe.load(toy.recipe(bench, step))
    train(recipe, tmp_path / "run")
    (made,) = (tmp_path / "run/artefacts").glob("cross_encoder-cross_encoder/*")
    teacher = CrossEncoder.load(made)
    layers = [tower.backbone.config.num_hidden_layers for tower in (Tower.load(bench / "tower"), teacher.tower)]
    assert layers[1] == 1 != layers[0]
    noted = Recipe.load(tmp_path / "run/recipe.toml").identities
    assert noted
    assert noted["cross_encoder.backbone"] == TowerSpec.read(bench / "one-layer").tower_id


def test_scores_and_topics_of_other_data_are_refused(bench: Path, tmp_path: Path) -> None:
    other = 'data = { kind = "judged", path = "data", negatives_per_query = 3, seed = 8 }\n'
    late = with_keys(LATE, steps=2, scores="score", data=None) + "\n" + other
    with pytest.raises(WrongUse, match=r"pairs have no score, the first: query 'ask"):
        train(Recipe.load(toy.recipe(bench, with_keys(CROSS, steps=1), SCORE, late)), tmp_path / "run")
    few = "\n".join((bench / "scores.tsv").read_text().splitlines()[:40])
    (bench / "few.tsv").write_text(few, encoding="utf-8")
    topics = with_keys(TOPICS, clusters=2).replace("scores.tsv", "few.tsv")
    alone = with_keys(TAS, in_batch_teacher=None) + "\nloss = { w_in_batch = 0 }"
    with pytest.raises(WrongUse, match=r"queries are in no cluster, the first: 'ask"):
        train(Recipe.load(toy.recipe(bench, topics, alone)), tmp_path / "other")


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ((with_keys(TAS, clusters=None, in_batch_teacher=None),), r"in_batch_teacher = None and w_in_batch = 0.75"),
        ((LATE, TOPICS, TAS + "loss = { w_in_batch = 0 }"), r"name a step .* or set w_in_batch = 0, not both"),
        ((with_keys(LATE, data=None) + "\n" + JUDGED,), r"step 1 .*: data: it brings no teacher's scores: name a step"),
        ((CROSS, SCORE, LATE + 'scores = "score"'), r"scores = 'score', but the data brings scores of its own"),
        ((with_keys(TOPICS, clusters=9999),), r"clusters = 9999 is more than there are queries \(\d+\): lower it"),
        ((with_keys(LATE, batch_size=9999),), r"batch_size: a batch of 9999 needs as many examples"),
        (
            (CROSS, SCORE, with_keys(TAS, clusters="score")),
            r"step 'score' gives scores, not clusters",
        ),
        (
            (CROSS + 'document = "start.document"\nbackbone = "tower"',),
            r"document = 'start.document' and a backbone: give",
        ),
        ((SCORE,), r"teacher = 'cross_encoder': no step before is called 'cross_encoder'"),
        ((with_keys(CROSS, document_tokens=99),), r"texts of 107 tokens are asked for, but 'toy' has positions for 32"),
        ((CROSS + 'negatives = "mine"',), r"no step before is called 'mine'"),
        ((with_keys(CROSS, data=None) + "\n" + SCORED + 'negatives = "m"',), r"'tsv' brings its own"),
        ((LATE.replace('"scores.tsv"', '"gone.tsv"'),), r"data.file names .*gone.tsv, which is not there"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_made(
    bench: Path, tmp_path: Path, steps: tuple[str, ...], message: str
) -> None:
    with pytest.raises(WrongUse, match=message):
        train(Recipe.load(toy.recipe(bench, *steps)), tmp_path / "run")
    assert not (tmp_path / "run").exists() or not list((tmp_path / "run").rglob("*.safetensors"))
