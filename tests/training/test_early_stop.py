"""Early stop: what is judged, when training ends, which weights are taken, and that a kill changes none of it."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.space.spec import Role
from bartizan_connector.space.tokens import Tokens
from bartizan_encoders.local import TorchEncoder
from bartizan_encoders.weights import read_weights
from bartizan_training import early_stop
from bartizan_training.data.token_table import TokenTable
from bartizan_training.early_stop import Dev, ndcg
from bartizan_training.evaluate.measuring import measure
from bartizan_training.loop import train
from bartizan_training.recipe import Recipe
from bartizan_training.settings import EarlyStop
from tests.training import toy
from tests.training.toy import CONTRASTIVE, DISTIL, REFINE, with_keys

RULE = 'early_stop = { data = "data", split = "test", every = 4, patience = 2, documents = 20 }'
STEP = with_keys(CONTRASTIVE, steps=20, batch_size=16, learning_rate=3e-2, log_every=3) + "\n" + RULE


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tower, data, and a run in `whole` whose rate is so high that it soon gets worse."""
    folder = toy.bench(tmp_path_factory.mktemp("bench"))
    torch.set_num_threads(1)
    train(Recipe.load(toy.recipe(folder, STEP)), folder / "whole")
    return folder


def lines(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def judged(run: Path) -> dict[int, float]:
    return {int(line["step"]): line["dev_nDCG@10"] for line in lines(run) if "dev_nDCG@10" in line}


def test_ndcg_is_that_of_the_evaluation() -> None:
    draw = np.random.default_rng(0)
    for _ in range(50):
        grades = {int(i): int(draw.integers(-1, 4)) for i in draw.choice(30, size=8, replace=False)}
        grades[0] = 1
        found = [int(i) for i in draw.permutation(30)[:10]]
        qrels = {"q": {f"d{i}": grade for i, grade in grades.items()}}
        expected = measure(qrels, {"q": [f"d{i}" for i in found]}).metrics["nDCG@10"]
        assert ndcg(found, grades) == pytest.approx(expected, abs=1e-9)


@pytest.mark.packaging
def test_the_pool_holds_every_judged_document_and_as_many_others_as_asked(bench: Path) -> None:
    rule = EarlyStop(data=bench / "data", split="test", every=1, patience=1, documents=7)
    dev = Dev.read(rule, seed=3)
    needed = Dev.read(rule.model_copy(update={"documents": 1}), seed=3)
    assert len(dev.documents) == len(needed.documents) + 6
    assert dev == Dev.read(rule, seed=3)
    assert dev.documents != Dev.read(rule, seed=4).documents
    assert all(grades and max(grades) < len(dev.documents) for grades in dev.grades)


@pytest.mark.packaging
def test_training_ends_when_patience_does_and_takes_the_best_weights(bench: Path, tmp_path: Path) -> None:
    found = judged(bench / "whole")
    best = max(found, key=lambda step: (found[step], -step))
    assert list(found) == [4 * i for i in range(1, len(found) + 1)]
    assert max(found) == best + 8 < 20
    assert lines(bench / "whole")[-1]["dev_best_step"] == best
    rule = RULE.replace("patience = 2", "patience = 1000")
    longer = train_to(bench, tmp_path / "longer", STEP.replace(RULE, rule))
    assert {step: longer[step] for step in found} == found
    assert len(longer) == 5
    kept = Dev.read(EarlyStop(data=bench / "data", split="test", every=4, patience=2, documents=20), seed=0)
    assert again(kept, bench / "whole") == pytest.approx(found[best])


def train_to(bench: Path, out: Path, *steps: str) -> dict[int, float]:
    train(Recipe.load(toy.recipe(bench, *steps)), out)
    return judged(out)


def again(dev: Dev, run: Path) -> float:
    """The figure, by other code and over the towers that the run left."""
    encoders = {role: TorchEncoder.open(run / "towers" / role) for role in ("query", "document")}
    queries, documents = (
        encoders["query"].encode(dev.queries, "query"),
        encoders["document"].encode(dev.documents, "document"),
    )
    order = np.argsort(-(queries.values @ documents.values.T), axis=1, kind="stable")
    return float(np.mean([ndcg(row[:10], grades) for row, grades in zip(order, dev.grades, strict=True)]))


@pytest.mark.packaging
def test_a_run_killed_between_judgements_stops_where_it_would_have(bench: Path) -> None:
    out, path = bench / "killed", toy.recipe(bench, STEP)
    checkpoints = out / "steps/1-contrastive/checkpoints"
    toy.train_and_kill(path, out, at=checkpoints / "step-00000004")
    (checkpoints / "best-00000099.pt").write_bytes(b"of a judgement that no checkpoint knows")
    train(Recipe.load(path), out, resume=True)
    ours, theirs = (read_weights(folder / "towers/query") for folder in (out, bench / "whole"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert judged(out) == judged(bench / "whole")
    assert {path.name for path in out.glob("steps/*/*")} == {"done.json"}


@pytest.mark.packaging
@pytest.mark.parametrize("step", [DISTIL, REFINE], ids=["distil_query", "refine"])
def test_a_frozen_document_tower_is_encoded_once(
    bench: Path, tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[str] = []

    def noting(tokens: Tokens, role: Role, texts: Sequence[str]) -> TokenTable:
        encoded.append(role)
        return TokenTable(tokens, role, texts)

    monkeypatch.setattr(early_stop, "TokenTable", noting)
    short = with_keys(step, steps=8, epochs=None) + "\n" + RULE
    train(Recipe.load(toy.recipe(bench, short)), tmp_path / "run")
    assert list(judged(tmp_path / "run")) == [4, 8]
    assert encoded == ["document", "query", "query"]


@pytest.mark.packaging
def test_two_processes_stop_together(bench: Path) -> None:
    step = with_keys(STEP.replace(RULE, ""), steps=12) + "\n" + RULE.replace("patience = 2", "patience = 1")
    path = toy.recipe(bench, step)
    toy.train_in_two_processes(path, bench / "two")
    train(Recipe.load(path), bench / "one")
    one, two = judged(bench / "one"), judged(bench / "two")
    assert min(one) == min(two) == 4
    assert one[4] == pytest.approx(two[4], abs=0.05)
    assert (bench / "two/towers/query").is_dir()


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        (RULE.replace('"test"', '"dev"'), r"step 1 \('contrastive'\): early_stop: .* has no split 'dev'"),
        (RULE.replace("every = 4", "every = 0"), "every"),
        (RULE.replace('"test"', '"train"'), "early_stop.split = 'train' has the queries that are learned from"),
    ],
)
def test_what_cannot_be_judged_is_refused_before_the_run(bench: Path, tmp_path: Path, rule: str, why: str) -> None:
    with pytest.raises(WrongUse, match=why):
        train(Recipe.load(toy.recipe(bench, STEP.replace(RULE, rule))), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_step_without_towers_has_none_to_judge(bench: Path) -> None:
    step = f'kind = "cross_encoder"\nsteps = 1\nlearning_rate = 1\ndata = {{ kind = "judged", path = "data" }}\n{RULE}'
    with pytest.raises(WrongUse, match="early_stop judges towers, and a step of kind 'cross_encoder' gives none"):
        Recipe.load(toy.recipe(bench, step))
