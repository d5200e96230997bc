"""`bartizan train` as a person uses it: the shipped recipe on a tower and a folder, then resumed, then misused."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.space.spec import TowerSpec
from bartizan_training.commands.train import train
from bartizan_training.recipe import Recipe, shipped
from tests.training import toy


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    toy.tower(folder / "tower", layers=6)
    toy.collection(folder / "data", queries=200)
    assert bartizan_train("scalingnote", folder, "run").exit_code == 0
    return folder


def program() -> typer.Typer:
    command = typer.Typer()
    command.command()(train)
    return command


def bartizan_train(recipe: str, folder: Path, run: str, *more: str) -> Result:
    places = ["--tower", str(folder / "tower"), "--data", str(folder / "data"), "--out", str(folder / run)]
    return CliRunner().invoke(program(), [recipe, *places, *more], catch_exceptions=False)


def test_the_shipped_recipe_runs_on_any_tower_and_collection(bench: Path) -> None:
    kinds = {json.loads(line)["kind"] for line in (bench / "run/metrics.jsonl").read_text().splitlines()}
    assert kinds == {"contrastive", "distil_query", "refine"}
    document, query = (TowerSpec.read(bench / "run/towers" / role) for role in ("document", "query"))
    assert query.space_id == document.space_id != TowerSpec.read(bench / "tower").space_id


def test_the_towers_of_a_run_are_printed(bench: Path) -> None:
    shown = bartizan_train("scalingnote", bench, "run", "--resume")
    spec = TowerSpec.read(bench / "run/towers/query")
    assert f"query     {bench / 'run/towers/query'}  {spec.tower_id}" in shown.stdout
    assert f"space     {spec.space_id}" in shown.stdout


def test_the_resolved_recipe_is_the_one_that_was_run(bench: Path) -> None:
    run = Recipe.load(shipped()["scalingnote"], tower=bench / "tower", data=bench / "data")
    assert Recipe.load(bench / "run/recipe.toml") == run.identified()
    assert run.identified().identities == {"tower": TowerSpec.read(bench / "tower").tower_id}


def test_the_copy_of_a_shipped_recipe_finds_what_lies_beside_it(bench: Path) -> None:
    (bench / "mine.toml").write_text(shipped()["scalingnote"].read_text())
    assert Recipe.load(bench / "mine.toml").identified() == Recipe.load(bench / "run/recipe.toml")


@pytest.mark.parametrize(
    ("recipe", "more", "message"),
    [
        ("scalingnote", (), "exists already; go on with it by --resume"),
        ("scalingnot", (), "neither a file nor one of the shipped recipes"),
        ("scalingnote", ("--data", "nowhere"), "--data nowhere is not a folder"),
        ("scalingnote", ("--tower", "nowhere"), "--tower nowhere is not a folder"),
    ],
)
def test_wrong_use_is_explained(bench: Path, recipe: str, more: tuple[str, ...], message: str) -> None:
    with pytest.raises(WrongUse, match=message):
        bartizan_train(recipe, bench, "run", *more)


@pytest.mark.parametrize("option", ["--tower", "--data"])
def test_a_shipped_recipe_says_what_it_needs(bench: Path, tmp_path: Path, option: str) -> None:
    words = ["scalingnote", option, str(bench / option.strip("-")), "--out", str(tmp_path / "run")]
    with pytest.raises(WrongUse, match="names no tower and no data of its own; give --tower TOWER and --data BEIR_FO"):
        CliRunner().invoke(program(), words, catch_exceptions=False)
    assert not (tmp_path / "run").exists()


def test_what_the_last_stage_lacks_is_named_before_the_first_begins(bench: Path) -> None:
    path = toy.recipe(bench, toy.CONTRASTIVE, toy.REFINE.replace('"data"', '"nowhere"'))
    with pytest.raises(WrongUse, match=r"the recipe's steps\.2\.data\.path names .*/nowhere, which is not there"):
        CliRunner().invoke(program(), [str(path), "--out", str(bench / "later")], catch_exceptions=False)
    assert not (bench / "later").exists()


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (toy.CONTRASTIVE.replace('"data"', '"tower"'), "corpus.jsonl"),
        (toy.with_keys(toy.CONTRASTIVE, batch_size=4000), "a batch of 4000 needs as many examples"),
        (toy.with_keys(toy.DISTIL, layers=[9]), "cannot keep the layers"),
    ],
    ids=["data", "batch", "layers"],
)
def test_a_run_that_was_refused_is_not_in_the_way_of_the_mended_one(
    bench: Path, tmp_path: Path, wrong: str, why: str
) -> None:
    out = tmp_path / "run"
    with pytest.raises(WrongUse, match=why):
        CliRunner().invoke(program(), [str(toy.recipe(bench, wrong)), "--out", str(out)], catch_exceptions=False)
    mended = toy.recipe(bench, toy.with_keys(toy.CONTRASTIVE, steps=1))
    assert CliRunner().invoke(program(), [str(mended), "--out", str(out)], catch_exceptions=False).exit_code == 0
    assert TowerSpec.read(out / "towers/query")


def test_the_help_is_enough_to_begin() -> None:
    text = " ".join(CliRunner().invoke(program(), ["--help"]).stdout.split())
    for needed in (
        "--tower TOWER --data BEIR_FOLDER --out RUN",
        "--resume",
        "contrastive",
        "distil_query",
        "refine",
        "RUN/towers",
        "accelerate launch",
        "docs/recipes.md",
        *shipped(),
    ):
        assert needed in text
