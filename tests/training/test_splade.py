"""CSPLADE's two steps on a tiny causal model: what they learn, what comes out, and that a run resumes to the bit."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.space.spec import TowerSpec
from bartizan_connector.space.vectors import SparseVector
from bartizan_encoders.local import TorchEncoder
from bartizan_encoders.tower import Tower
from bartizan_encoders.weights import read_weights
from bartizan_training.data.collections import BeirData
from bartizan_training.loop import train
from bartizan_training.recipe import Recipe
from bartizan_training.stages.adapt import blocks
from tests.training import toy, toy_sparse
from tests.training.toy import with_keys
from tests.training.toy_sparse import ADAPT, SPLADE


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tower, data, and a run of both steps in `run`."""
    folder = toy_sparse.bench(tmp_path_factory.mktemp("bench"))
    torch.set_num_threads(1)
    train(Recipe.load(toy.recipe(folder, ADAPT, SPLADE)), folder / "run")
    return folder


def lines(run: Path, stage: int) -> list[dict[str, float]]:
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [record for record in records if record["stage"] == stage]


def dense(rows: tuple[SparseVector, ...], size: int) -> np.ndarray:
    made = np.zeros((len(rows), size))
    for row, vector in zip(made, rows, strict=True):
        row[vector.indices] = vector.weights
    return made


def encoded(folder: Path, texts: list[str], role: str) -> np.ndarray:
    encoder = TorchEncoder.open(folder)
    values = encoder.encode(texts, role).values  # type: ignore[arg-type]
    assert isinstance(values, tuple)
    return dense(values, encoder.spec.dim)


def found_first(data: Path, towers: Path) -> float:
    """Share of the test queries whose own document comes first."""
    beir = BeirData.read(data)
    qrels = beir.qrels("test")
    documents = encoded(towers / "document", list(beir.corpus.values()), "document")
    queries = encoded(towers / "query", [beir.queries[query] for query in qrels], "query")
    best, ids = (queries @ documents.T).argmax(axis=1), list(beir.corpus)
    return float(np.mean([qrels[query].get(ids[n], 0) for query, n in zip(qrels, best, strict=True)]))


@pytest.mark.packaging
def test_the_trained_towers_are_sparse_and_find_held_out_queries(bench: Path) -> None:
    spec = TowerSpec.read(bench / "run/towers/document")
    assert (spec.kind, spec.special_tokens, spec.tower_id) == ("sparse", "none", spec.space_id)
    assert TowerSpec.read(bench / "run/towers/query") == spec
    assert found_first(bench / "data", bench / "run/towers") > 0.6
    documents = encoded(bench / "run/towers/document", list(BeirData.read(bench / "data").corpus.values()), "document")
    active = (documents > 0).sum(axis=1)
    assert active.min() > 0
    assert active.mean() < 0.5 * len(toy.WORDS)


def test_the_metrics_say_how_sparse_the_vectors_are(bench: Path) -> None:
    first, last = lines(bench / "run", 2)[0], lines(bench / "run", 2)[-1]
    assert last["document_active_terms"] < first["document_active_terms"]
    assert last["query_zero_share"] == 0
    assert (first["flops_share"] < 1, last["flops_share"]) == (True, 1)
    assert last["rank_loss"] < first["rank_loss"]
    assert last["loss"] >= last["rank_loss"]


def test_adaptation_lowers_both_losses(bench: Path) -> None:
    first, last = lines(bench / "run", 1)[0], lines(bench / "run", 1)[-1]
    assert last["clm"] < first["clm"]
    assert last["relu_clm"] < first["relu_clm"]


def test_adaptation_wakes_a_head_that_had_died(bench: Path) -> None:
    stage = toy_sparse.stage(bench, ADAPT)
    head = stage.tower.head
    with torch.no_grad():
        ids, mask = stage.batch(0).texts[0].pieces[0]
        states = stage.tower.backbone(input_ids=ids, attention_mask=mask).last_hidden_state.flatten(0, 1)
        away = torch.linalg.lstsq(states, torch.ones(len(states), 1)).solution[:, 0]
        head.weight = torch.nn.Parameter(head.weight - 3 * away)  # untied, and nearly every logit about -3
    optimizer = torch.optim.AdamW(stage.parameters(), lr=3e-3)
    idle = []
    stage.noting = True
    for number in range(40):
        optimizer.zero_grad()
        stage(stage.batch(number)).backward()
        optimizer.step()
        idle.append(stage.notes["idle_logits"].item())
    assert idle[0] > 0.85
    assert idle[-1] < idle[0] - 0.2


def test_adapting_at_weight_0_is_plain_next_token_training(bench: Path) -> None:
    stage = toy_sparse.stage(bench, ADAPT + "loss = { w_relu = 0 }")
    batch = stage.batch(0)
    tower = Tower.load(bench / "tower")
    total, count = 0.0, 0
    for ids, mask in batch.texts[0].pieces:
        with torch.no_grad():
            logits = tower.head(tower.backbone(input_ids=ids, attention_mask=mask).last_hidden_state)
        for row, text in zip(logits.double().numpy(), ids.numpy(), strict=True):
            for place in range(len(text) - 1):
                total += np.log(np.exp(row[place]).sum()) - row[place][text[place + 1]]
                count += 1
    assert stage(batch).item() == pytest.approx(total / count, rel=1e-5)


def test_the_adaptation_loss_is_both_losses_over_the_same_logits(bench: Path) -> None:
    stage = toy_sparse.stage(bench, ADAPT + "loss = { w_relu = 2 }")
    stage.noting = True
    loss = stage(stage.batch(0)).item()
    assert loss == pytest.approx(stage.notes["clm"].item() + 2 * stage.notes["relu_clm"].item(), rel=1e-6)


def test_the_texts_are_packed_without_gaps(bench: Path) -> None:
    tower = Tower.load(bench / "tower")
    tower.architecture["eos_token_id"] = 3
    packed = blocks(tower, ["thing1 thing2", "thing3", "thing4 thing5 thing6"], 3)
    ids = {word: number for number, word in enumerate(toy.WORDS)}
    expected = ["thing1", "thing2", "[SEP]", "thing3", "[SEP]", "thing4", "thing5", "thing6", "[SEP]"]
    assert packed.reshape(-1).tolist() == [ids[word] for word in expected]
    with pytest.raises(WrongUse, match="are 9 tokens in all, fewer than one block of 10: lower block"):
        blocks(tower, ["thing1 thing2", "thing3", "thing4 thing5 thing6"], 10)


def test_the_loss_is_the_ranking_and_the_flops_of_both_sides(bench: Path) -> None:
    stage = toy_sparse.stage(bench, SPLADE + "precision = 'fp32'")
    batch = stage.batch(50)  # after the ramp
    embedded = {name: part.detach().double() for name, part in stage.embed(batch).items()}
    q, d = embedded["query"].numpy(), torch.cat([embedded["own"], embedded["hard"]]).numpy()
    scores, known = q @ d.T, batch.beside[0].numpy().copy()
    np.fill_diagonal(known, False)
    scores[known] = -np.inf
    rank = np.mean(np.log(np.exp(scores).sum(axis=1)) - scores.diagonal())
    flops = [(np.abs(vectors).mean(axis=0) ** 2).sum() for vectors in (q, d)]
    assert stage(batch).item() == pytest.approx(rank + 0.03 * sum(flops), rel=1e-5)
    assert [stage.batch(number).beside[1].item() for number in (0, 32, 99)] == pytest.approx([(1 / 33) ** 2, 1, 1])


@pytest.mark.parametrize(("variant", "fact"), [("echo", "echo"), ("bidirectional", "attention")])
def test_a_variant_is_a_fact_of_the_towers_that_come_out(bench: Path, tmp_path: Path, variant: str, fact: str) -> None:
    text = with_keys(SPLADE, variant=variant, steps=3, top_terms=9)
    train(Recipe.load(toy.recipe(bench, text)), tmp_path / "run")
    tower = Tower.load(tmp_path / "run/towers/query")
    assert getattr(tower.spec, fact) in (True, "bidirectional")
    assert (encoded(tmp_path / "run/towers/query", ["ask1 ask2 ask3", "ask4"], "query") > 0).sum(axis=1).max() <= 9


def test_untied_towers_share_the_document_towers_space(bench: Path, tmp_path: Path) -> None:
    train(Recipe.load(toy.recipe(bench, with_keys(SPLADE, tied=False, steps=2))), tmp_path / "run")
    document, query = (TowerSpec.read(tmp_path / "run/towers" / role) for role in ("document", "query"))
    assert query.space_id == document.tower_id != query.tower_id


@pytest.mark.packaging
def test_a_killed_run_ends_with_the_same_weights(bench: Path, tmp_path: Path) -> None:
    steps = with_keys(ADAPT, steps=12, checkpoint_every=5), with_keys(SPLADE, steps=12, checkpoint_every=5)
    path = toy.recipe(bench, *steps)
    train(Recipe.load(path), tmp_path / "whole")
    toy.train_and_kill(path, tmp_path / "run", at=tmp_path / "run/steps/1-adapt/checkpoints/step-00000005")
    toy.train_and_kill(path, tmp_path / "run", at=tmp_path / "run/steps/2-splade/checkpoints/step-00000010")
    train(Recipe.load(path), tmp_path / "run", resume=True)
    whole, resumed = (read_weights(tmp_path / name / "towers/query") for name in ("whole", "run"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.parametrize(
    ("step", "why"),
    [
        (ADAPT, "is dense; import it with kind = 'sparse'"),
        (SPLADE, "is dense; import it with kind = 'sparse'"),
    ],
    ids=["adapt", "splade"],
)
def test_a_dense_tower_is_refused(bench: Path, tmp_path: Path, step: str, why: str) -> None:
    toy.tower(tmp_path / "dense")
    recipe = Recipe.load(toy.recipe(bench, step), tower=tmp_path / "dense")
    with pytest.raises(WrongUse, match=why):
        train(recipe, tmp_path / "run")


def test_a_tower_that_sees_all_of_a_text_cannot_be_adapted(bench: Path, tmp_path: Path) -> None:
    tower = Tower.load(bench / "tower")
    tower.spec = tower.spec.model_copy(update={"attention": "bidirectional"})
    tower.save(tmp_path / "all")
    with pytest.raises(WrongUse, match="no next token is left to predict"):
        train(Recipe.load(toy.recipe(bench, ADAPT), tower=tmp_path / "all"), tmp_path / "run")


def test_a_collapse_is_said_aloud(bench: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    text = with_keys(SPLADE, steps=40, flops=None, log_every=40) + "\nflops = { query = 1e6, document = 1e6, ramp = 0 }"
    train(Recipe.load(toy.recipe(bench, text)), tmp_path / "run")
    assert "of the query vectors are all zero and find nothing: adapt longer before" in capfd.readouterr().err
