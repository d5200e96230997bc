"""The `pretrain` step on models of a few numbers: its losses, what comes out, and that it resumes to the bit."""

import json
import math
import random
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.space.spec import TowerSpec
from bartizan_encoders.backbone import quiet_transformers
from bartizan_encoders.importing import Wishes, import_tower
from bartizan_encoders.tower import Tower
from bartizan_encoders.weights import read_weights
from bartizan_training import checkpoint
from bartizan_training.checkpoint import State
from bartizan_training.loop import train
from bartizan_training.recipe import Recipe
from bartizan_training.stages.pretrain import Pretrain, PretrainStage
from tests.training import toy
from tests.training.toy import CONTRASTIVE, with_keys

FAMILIES: dict[str, dict[str, int]] = {"t5": {"decoder_layers": 1}, "llama": {}, "bert": {}}
SIZE = {"layers": 1, "hidden": 16, "heads": 2, "feed_forward": 32}


def size(family: str = "t5", **keys: object) -> dict[str, object]:
    return {"family": family} | FAMILIES.get(family, {}) | SIZE | keys


def step(family: str = "t5", **keys: object) -> str:
    """A few steps of a tiny model; a key that is None is left out."""
    table: dict[str, object] = {
        "kind": "pretrain",
        "steps": 6,
        "batch_size": 8,
        "block": 24,
        "vocabulary": 360,
        "learning_rate": 1e-2,
        "log_every": 1,
        "checkpoint_every": 2,
        "model": size(family),
        "texts": [{"kind": "documents", "path": "data"}],
    }
    return "\n".join(f"{key} = {_toml(value)}" for key, value in (table | keys).items() if value is not None)


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + " }"
    return f"[{', '.join(map(_toml, value))}]" if isinstance(value, list) else json.dumps(value)


def recipe(bench: Path, *steps: str) -> Recipe:
    path = toy.recipe(bench, *steps)
    path.write_text(path.read_text().replace('tower = "tower"\n', "", 1))
    return Recipe.load(path)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    toy.collection(folder / "data")
    return folder


def stage(bench: Path, family: str) -> PretrainStage:
    torch.manual_seed(0)
    (table,) = recipe(bench, step(family)).steps
    assert isinstance(table, Pretrain)
    return table.stage({}, toy.toy_place(bench))


def history(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def log_softmax(logits: torch.Tensor) -> np.ndarray:
    values = logits.double().numpy()
    values = values - values.max(axis=-1, keepdims=True)
    return np.asarray(values - np.log(np.exp(values).sum(axis=-1, keepdims=True)))


def slow(model: Any, family: str, ids: torch.Tensor, targets: torch.Tensor) -> list[float]:
    """The cross entropy of each target, one after the other, out of the library's own call for the whole model."""
    losses = []
    for text, said in zip(ids, targets, strict=True):
        with torch.no_grad():
            if family == "t5":
                logits = model(input_ids=text[None], labels=said[None]).logits[0]
            else:
                logits = model(input_ids=text[None]).logits[0]
        logs = log_softmax(logits)
        losses += [-logs[place, target] for place, target in enumerate(said.tolist()) if target >= 0]
    return losses


@pytest.mark.parametrize("family", FAMILIES)
def test_the_loss_is_the_mean_over_the_targets(bench: Path, family: str) -> None:
    made = stage(bench, family)
    made.noting = True
    batch = made.batch(3)
    (packed,), (targets,) = batch.texts, batch.beside
    ids = torch.cat([piece for piece, _ in packed.pieces])
    losses = slow(made.model, family, ids, targets)
    assert made(batch).item() == pytest.approx(np.mean(losses), rel=1e-5)
    assert 0 <= made.notes["right_share"].item() <= 1
    many = made._table.model_copy(update={"padded_tokens": 1})  # a text at a time
    made._table = many
    again = made.batch(3)
    assert len(again.texts[0].pieces) == 8
    assert made(again).item() == pytest.approx(np.mean(losses), rel=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_two_processes_are_asked_what_one_is_asked(bench: Path, family: str) -> None:
    made = stage(bench, family)
    whole = made.batch(5)
    halves = []
    for rank in range(2):
        beside = SimpleNamespace(process_index=rank, num_processes=2, device=torch.device("cpu"))
        made._place = replace(made._place, accelerator=beside)  # type: ignore[arg-type]
        halves.append(made.batch(5))
    seen = [torch.cat([ids for ids, _ in batch.texts[0].pieces]) for batch in (whole, *halves)]
    said = [batch.beside[0] for batch in (whole, *halves)]
    for one, *two in (seen, said):
        assert torch.equal(torch.cat(two), one)
    assert sum(made(half).item() for half in halves) / 2 == pytest.approx(made(whole).item(), rel=1e-5)


@pytest.mark.packaging
def test_two_processes_train_what_one_trains(bench: Path, tmp_path: Path) -> None:
    """Real ones, over gloo: the losses and gradients of each step, and the weights that come out."""
    steps = [step(family, name=family, steps=3) for family in FAMILIES]
    table = recipe(bench, *steps)
    train(table, tmp_path / "one")
    toy.train_in_two_processes(bench / "recipe.toml", tmp_path / "two")
    for ours, theirs in zip(history(tmp_path / "one"), history(tmp_path / "two"), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
        assert ours["gradient_norm"] == pytest.approx(theirs["gradient_norm"], rel=1e-3)
    for family in FAMILIES:
        one, two = (read_weights(toy.towers_of(tmp_path / name, family) / "document") for name in ("one", "two"))
        assert max((one[name] - two[name]).abs().max().item() for name in one) < 1e-3


def test_a_new_t5_begins_near_chance(bench: Path) -> None:
    made = stage(bench, "t5")
    assert made(made.batch(0)).item() == pytest.approx(math.log(made._pieces.size), abs=1.5)


@pytest.mark.packaging
@pytest.mark.parametrize("family", FAMILIES)
def test_it_learns_and_gives_a_tower_that_later_steps_take(bench: Path, tmp_path: Path, family: str) -> None:
    contrast = with_keys(CONTRASTIVE, steps=2)
    train(recipe(bench, step(family, steps=30), contrast), tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if line["kind"] == "pretrain"]
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:3])
    assert "right_share" in lines[0]
    first = Tower.load(toy.towers_of(tmp_path / "run", "pretrain") / "document")
    assert first.spec.pooling == ("last" if family == "llama" else "mean")
    last = TowerSpec.read(tmp_path / "run/towers/document")
    assert last.tokenizer_hash == first.spec.tokenizer_hash
    assert last.weights_hash != first.spec.weights_hash


def test_bf16_is_the_arithmetic_and_fp32_what_is_kept(bench: Path) -> None:
    losses = {}
    for precision in ("fp32", "bf16"):
        made = stage(bench, "t5")
        made._table = made._table.model_copy(update={"precision": precision})
        losses[precision] = made(made.batch(0))
        losses[precision].backward()
        assert {parameter.dtype for parameter in made.parameters()} == {torch.float32}
        assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in made.parameters())
    assert losses["bf16"].dtype == torch.float32
    assert losses["bf16"].item() == pytest.approx(losses["fp32"].item(), rel=0.02)
    assert losses["bf16"].item() != losses["fp32"].item()


def test_the_model_is_published_whole_beside_its_tower(bench: Path, tmp_path: Path) -> None:
    train(recipe(bench, step(tower={"dim": 12, "max_tokens": 20}, steps=2)), tmp_path / "run")
    made = toy.towers_of(tmp_path / "run", "pretrain")
    spec = TowerSpec.read(tmp_path / "run/towers/query")
    assert (spec.dim, spec.head, spec.name, spec.roles["query"].max_tokens) == (12, "linear", "toy", 20)
    again = import_tower(str(made / "model"), Wishes(name="toy", dim=12, max_tokens=20))
    assert again.spec == spec
    with quiet_transformers():
        model = AutoModelForSeq2SeqLM.from_pretrained(made / "model")
        tokenizer = AutoTokenizer.from_pretrained(made / "model")
    assert model.config.num_decoder_layers == 1
    assert tokenizer("thing1 <extra_id_0>")["input_ids"][-2:] == [len(tokenizer) - 1, 1]


def test_a_causal_model_gives_a_sparse_tower_too(bench: Path, tmp_path: Path) -> None:
    tower = {"kind": "sparse", "special_tokens": "none"}
    train(recipe(bench, step("llama", tower=tower, steps=2)), tmp_path / "run")
    spec = TowerSpec.read(tmp_path / "run/towers/document")
    assert (spec.kind, spec.head, spec.pooling) == ("sparse", "lm", "max")


@pytest.mark.packaging
@pytest.mark.parametrize("optimizer", ["adamw", "adafactor"])
def test_a_run_that_broke_off_anywhere_ends_with_the_same_weights(
    bench: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    """Broken off at a random step of each stage, as a kill would: nothing after the last checkpoint is there."""
    table = recipe(
        bench,
        step(optimizer=optimizer, dropout=True),
        with_keys(CONTRASTIVE, steps=6, checkpoint_every=2, optimizer=optimizer),
    )
    train(table, tmp_path / "whole")
    save, place = checkpoint.save, ("", 0)

    def breaking_off(accelerator: Any, kept: Any, folder: Path, state: State) -> None:
        if (folder.parent.name, state.step) == place:
            raise KeyboardInterrupt
        save(accelerator, kept, folder, state)

    monkeypatch.setattr(checkpoint, "save", breaking_off)
    for name in ("1-pretrain", "2-contrastive"):
        place = name, random.choice([2, 4, 6])
        with pytest.raises(KeyboardInterrupt):
            train(table, tmp_path / "run", resume=True)
        assert not (tmp_path / "run/steps" / name / "done.json").exists()
    place = "", 0
    train(table, tmp_path / "run", resume=True)
    whole, resumed = (read_weights(tmp_path / name / "towers/query") for name in ("whole", "run"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.packaging
def test_a_tokenizer_that_is_there_is_taken_as_it_is(bench: Path, tmp_path: Path) -> None:
    train(recipe(bench, step(steps=1)), tmp_path / "run")
    made = toy.towers_of(tmp_path / "run", "pretrain") / "model"
    train(recipe(bench, step(steps=1, tokenizer=str(made), vocabulary=None)), tmp_path / "again")
    first, second = (TowerSpec.read(tmp_path / name / "towers/query") for name in ("run", "again"))
    assert first.tokenizer_hash == second.tokenizer_hash
    assert not list((tmp_path / "again/artefacts").glob("*-tokenizer"))


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"lora": {"rank": 4, "alpha": 4.0}}, "a new model is trained as a whole"),
        ({"block": 4000}, "gets more holes than the 100"),
        ({"model": size(hidden=15)}, "model.hidden = 15 is no multiple of model.heads = 2"),
        ({"model": size("bert", positions=8)}, "block = 24 is longer than model.positions = 8"),
        ({"model": size("bart")}, "model.family"),
        ({"tokenizer": "data"}, "tokenizer: cannot read .*tokenizer.json"),
        ({"tower": {"kind": "sparse"}}, "the encoder of a T5 has no language model's head"),
        (
            {"texts": [{"kind": "lines", "path": "few.txt"}]},
            "texts: the texts are . tokens in all, fewer than one block",
        ),
    ],
)
def test_what_cannot_be_made_is_refused(bench: Path, tmp_path: Path, keys: dict[str, Any], why: str) -> None:
    (bench / "few.txt").write_text("thing1\n")
    with pytest.raises(WrongUse, match=why):
        train(recipe(bench, step(**keys)), tmp_path / "run")


def test_without_a_tower_some_step_must_make_one(bench: Path, tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match=r"step 1 \('contrastive'\): there is no tower to start from"):
        train(recipe(bench, CONTRASTIVE, step()), tmp_path / "run")
    recipe(bench, step())
    with pytest.raises(WrongUse, match="makes the tower that it starts from: leave --tower"):
        Recipe.load(bench / "recipe.toml", tower=tmp_path)
