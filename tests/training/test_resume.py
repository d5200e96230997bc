"""What a resumed run checks: its starting towers, its begun steps; and what it may find changed."""

import errno
import json
import os
import shutil
from itertools import count
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import Field

from bartizan_connector.base.errors import BartizanError, SpaceMismatch, WrongUse
from bartizan_connector.space.spec import TowerSpec
from bartizan_encoders.tower import Tower
from bartizan_training import loop
from bartizan_training.loop import train
from bartizan_training.recipe import Recipe
from bartizan_training.stages.contrastive import Contrastive
from bartizan_training.stages.distil_query import DistilQuery
from bartizan_training.stages.refine import Refine
from tests.training import toy
from tests.training.toy import CONTRASTIVE, DISTIL, REFINE, with_keys

FIRST = with_keys(CONTRASTIVE, steps=6)
STUDENT = with_keys(DISTIL, layers=None, student="small", epochs=None, steps=4)
LONG = with_keys(CONTRASTIVE, steps=5000, checkpoint_every=1)


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    folder = toy.bench(tmp_path)
    toy.tower(folder / "small", layers=1, seed=3)
    return folder


@pytest.fixture
def cut_off(bench: Path) -> Path:
    """A folder whose `run` was killed in its first step."""
    path = toy.recipe(bench, LONG, STUDENT)
    toy.train_and_kill(path, bench / "run", at=bench / "run/steps/1-contrastive/checkpoints/step-00000002")
    return bench


def steps_made(run: Path) -> int:
    return len((run / "metrics.jsonl").read_text().splitlines()) if (run / "metrics.jsonl").exists() else 0


def test_another_tower_at_the_same_path_is_refused_before_a_step_is_made(cut_off: Path) -> None:
    recipe = Recipe.load(cut_off / "recipe.toml")
    before = TowerSpec.read(cut_off / "tower").tower_id
    shutil.rmtree(cut_off / "tower")
    toy.tower(cut_off / "tower", seed=9)
    now, made = TowerSpec.read(cut_off / "tower").tower_id, steps_made(cut_off / "run")
    with pytest.raises(SpaceMismatch, match=r"tower = .* is another tower now") as refusal:
        train(recipe, cut_off / "run", resume=True)
    assert (refusal.value.expected, refusal.value.came) == (before, now)
    assert before in str(refusal.value)
    assert "Put the old tower back" in str(refusal.value)
    assert steps_made(cut_off / "run") == made


@pytest.mark.packaging
def test_another_student_is_refused_only_once_its_step_has_begun(cut_off: Path) -> None:
    path = toy.recipe(cut_off, FIRST, STUDENT)
    train(Recipe.load(path), cut_off / "whole")
    for folder in ("whole", "run"):
        noted = Recipe.load(cut_off / folder / "recipe.toml").identities
        assert noted == {
            "tower": TowerSpec.read(cut_off / "tower").tower_id,
            "distil_query.student": TowerSpec.read(cut_off / "small").tower_id,
        }
    shutil.rmtree(cut_off / "small")
    toy.tower(cut_off / "small", layers=1, seed=4)
    with pytest.raises(SpaceMismatch, match=r"distil_query.student = .* is another tower now"):
        train(Recipe.load(path), cut_off / "whole", resume=True)
    shutil.rmtree(cut_off / "run/steps/1-contrastive")
    train(Recipe.load(path), cut_off / "run", resume=True)
    noted = Recipe.load(cut_off / "run/recipe.toml").identities
    assert noted
    assert noted["distil_query.student"] == TowerSpec.read(cut_off / "small").tower_id


def test_a_recipe_that_names_a_towers_identity_takes_no_other(bench: Path) -> None:
    pinned = FIRST + '\n[identities]\ntower = "tw-' + "0" * 32 + '"'
    with pytest.raises(SpaceMismatch, match="expected space tw-0000"):
        train(Recipe.load(toy.recipe(bench, pinned)), bench / "run")
    assert not (bench / "run").exists()
    elsewhere = Recipe.load(bench / "recipe.toml", tower=bench / "small")
    assert elsewhere.identities == {}


def test_steps_that_have_not_begun_may_be_changed(bench: Path) -> None:
    train(Recipe.load(toy.recipe(bench, FIRST)), bench / "run")
    before = (bench / "run/towers/query/model.safetensors").read_bytes()
    longer = toy.recipe(bench, FIRST, with_keys(REFINE, steps=2))
    train(Recipe.load(longer), bench / "run", resume=True)
    assert (bench / "run/towers/query/model.safetensors").read_bytes() != before
    assert [step.kind for step in Recipe.load(bench / "run/recipe.toml").steps] == ["contrastive", "refine"]
    lines = [json.loads(line) for line in (bench / "run/metrics.jsonl").read_text().splitlines()]
    assert {line["kind"] for line in lines} == {"contrastive", "refine"}


def test_a_step_that_has_begun_may_not_be_changed(cut_off: Path) -> None:
    path = toy.recipe(cut_off, with_keys(LONG, learning_rate=1e-4), STUDENT)
    with pytest.raises(WrongUse, match=r"another recipe \(steps.1.learning_rate was 0.003, is 0.0001\)"):
        train(Recipe.load(path), cut_off / "run", resume=True)
    renamed = toy.recipe(cut_off, with_keys(LONG, name="warm"), STUDENT)
    with pytest.raises(WrongUse, match=r"steps.1.name was 'contrastive', is 'warm'"):
        train(Recipe.load(renamed), cut_off / "run", resume=True)


def test_a_changed_later_step_is_checked_before_the_first_goes_on(cut_off: Path) -> None:
    path, made = toy.recipe(cut_off, LONG, with_keys(DISTIL, layers=[7])), steps_made(cut_off / "run")
    with pytest.raises(WrongUse, match=r"step 2 \('distil_query'\): layers = \[7\]"):
        train(Recipe.load(path), cut_off / "run", resume=True)
    assert steps_made(cut_off / "run") == made


class GrownContrastive(Contrastive):
    """As a later version might have it."""

    smoothing: float = 0.25
    """A key that did not exist when the run began."""


class GrownRecipe(Recipe):
    steps: tuple[Annotated[GrownContrastive | DistilQuery | Refine, Field(discriminator="kind")], ...]
    curriculum: bool = False
    """Another one, at the top."""


def test_keys_that_a_later_version_adds_make_no_old_run_another(bench: Path) -> None:
    path = toy.recipe(bench, FIRST, with_keys(REFINE, steps=2))
    train(Recipe.load(path), bench / "run")
    towers = {folder.name for folder in (bench / "run/artefacts").glob("*/*")}
    assert "smoothing" not in (bench / "run/recipe.toml").read_text()
    (bench / "run/steps/2-refine/done.json").unlink()
    (bench / "run/steps/1-contrastive/done.json").unlink()
    made = steps_made(bench / "run")
    train(GrownRecipe.load(path), bench / "run", resume=True)
    assert {folder.name for folder in (bench / "run/artefacts").glob("*/*")} == towers
    assert steps_made(bench / "run") == made  # found again under the same keys, not trained again
    with pytest.raises(WrongUse, match=r"steps.1.smoothing was 0.25, is 0.5"):
        train(GrownRecipe.load(toy.recipe(bench, with_keys(FIRST, smoothing=0.5), REFINE)), bench / "run", resume=True)


def test_finished_towers_are_on_disk_before_their_checkpoints_go(bench: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: set[int] = set()
    looked: list[Path] = []
    fsync, rmtree = os.fsync, shutil.rmtree

    def noting_fsync(handle: int) -> None:
        synced.add(os.fstat(handle).st_ino)
        fsync(handle)

    def looking_rmtree(path: Path, *arguments: Any, **options: Any) -> None:
        if Path(path).name == "checkpoints":
            looked.append(Path(path))
            assert any(Path(path).iterdir())
            towers = toy.towers_of(bench / "run", "contrastive")
            names = [towers, towers.parent, *towers.rglob("*"), Path(path).parent / "done.json"]
            assert {name.stat().st_ino for name in names} <= synced
        rmtree(path, *arguments, **options)

    monkeypatch.setattr(os, "fsync", noting_fsync)
    monkeypatch.setattr(loop.shutil, "rmtree", looking_rmtree)
    train(Recipe.load(toy.recipe(bench, FIRST)), bench / "run")
    assert looked == [bench / "run/steps/1-contrastive/checkpoints"]


def test_a_kill_between_the_towers_and_the_note_costs_nothing(bench: Path) -> None:
    recipe = Recipe.load(toy.recipe(bench, FIRST))
    train(recipe, bench / "run")
    whole = toy.towers_of(bench / "run", "contrastive")
    stamp = (whole / "query/model.safetensors").stat().st_mtime_ns
    (bench / "run/steps/1-contrastive/done.json").unlink()
    shutil.rmtree(bench / "run/towers")
    train(recipe, bench / "run", resume=True)
    assert (whole / "query/model.safetensors").stat().st_mtime_ns == stamp
    assert Tower.load(bench / "run/towers/query").spec == TowerSpec.read(whole / "query")


@pytest.mark.packaging
@pytest.mark.parametrize("fills_at", [1, 2, 9, 14])
def test_a_run_that_found_the_disk_full_goes_on(bench: Path, monkeypatch: pytest.MonkeyPatch, fills_at: int) -> None:
    """Whatever was being flushed: the recipe, a checkpoint, the towers."""
    recipe = Recipe.load(toy.recipe(bench, with_keys(FIRST, steps=2, checkpoint_every=1)))
    fsync, calls = os.fsync, count(1)

    def full(handle: int) -> None:
        if next(calls) >= fills_at:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(BartizanError):
            train(recipe, bench / "run")
    train(recipe, bench / "run", resume=True)
    assert Tower.load(bench / "run/towers/query").spec.kind == "dense"


def test_what_a_kill_left_hidden_before_the_recipe_was_there_is_no_obstacle(bench: Path) -> None:
    recipe = Recipe.load(toy.recipe(bench, with_keys(FIRST, steps=2)))
    (bench / "run/artefacts/.start-towers.abc/new").mkdir(parents=True)
    (bench / "run/.recipe.toml.123.0badcafe").touch()
    train(recipe, bench / "run", resume=True)
    assert (bench / "run/towers/query").is_dir()
    (bench / "other").mkdir()
    (bench / "other/thesis.txt").touch()
    with pytest.raises(WrongUse, match="is not a run"):
        train(recipe, bench / "other", resume=True)


def _edited(queries: Path) -> str:
    """Another word in one query, at the same length; what stood there before."""
    before = queries.read_text()
    queries.write_text(before.replace("ask1 ", "ask2 ", 1))
    assert queries.stat().st_size == len(before.encode())
    return before


def test_data_that_was_edited_between_two_steps_is_refused_by_name_until_it_is_put_back(bench: Path) -> None:
    train(Recipe.load(toy.recipe(bench, with_keys(FIRST, steps=2))), bench / "run")
    longer = Recipe.load(toy.recipe(bench, with_keys(FIRST, steps=2), with_keys(REFINE, steps=2)))
    queries = bench / "data/queries.jsonl"
    before, made = _edited(queries), steps_made(bench / "run")
    with pytest.raises(WrongUse, match=rf"{queries} holds something else now, and step 2 \('refine'\)"):
        train(longer, bench / "run", resume=True)
    assert steps_made(bench / "run") == made
    queries.write_text(before)
    train(longer, bench / "run", resume=True)
    assert steps_made(bench / "run") > made


def test_data_that_is_edited_while_a_run_goes_on_is_refused_before_the_next_step(
    bench: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit, queries = loop.fit, bench / "data/queries.jsonl"

    def edits(*words: Any, **options: Any) -> None:
        fit(*words, **options)
        if not kept:
            kept.append(_edited(queries))

    kept: list[str] = []
    monkeypatch.setattr(loop, "fit", edits)
    recipe = Recipe.load(toy.recipe(bench, with_keys(FIRST, steps=2), with_keys(REFINE, steps=2)))
    with pytest.raises(WrongUse, match=r"queries.jsonl holds something else now"):
        train(recipe, bench / "run")
    queries.write_text(kept[0])
    train(recipe, bench / "run", resume=True)


@pytest.mark.packaging
def test_data_of_steps_that_are_done_or_have_not_begun_may_change_or_go(bench: Path) -> None:
    shutil.copytree(bench / "data", bench / "first")
    first = with_keys(FIRST, steps=2).replace('path = "data"', 'path = "first"')
    train(Recipe.load(toy.recipe(bench, first)), bench / "run")
    _edited(bench / "first/queries.jsonl")
    _edited(bench / "data/queries.jsonl")
    longer = Recipe.load(toy.recipe(bench, first, with_keys(REFINE, steps=2)))
    train(longer, bench / "run", resume=True)
    noted = json.loads((bench / "run/data.json").read_text())
    assert {Path(file).relative_to(bench).parts[0] for file in noted} == {"first", "data"}
    before = (bench / "run/data.json").stat().st_mtime_ns
    shutil.rmtree(bench / "first")
    train(longer, bench / "run", resume=True)
    assert (bench / "run/data.json").stat().st_mtime_ns == before
