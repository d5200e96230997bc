"""`bartizan train` as a person uses it: a shipped recipe on a tower and a folder, then resumed, then misused."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from bartizan_connector.__main__ import main
from bartizan_connector.base.errors import WrongUse
from bartizan_connector.space.spec import TowerSpec
from bartizan_encoders.tower import Tower
from bartizan_training import loop
from bartizan_training.commands.train import train
from bartizan_training.recipe import Recipe, shipped
from bartizan_training.stages.distil_query import DistilQuery
from tests.training import toy

pytestmark = pytest.mark.packaging  # the shipped recipe is run
NAME = "scalingnote-small"


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the shipped recipe as a try-out."""
    folder = tmp_path_factory.mktemp("bench")
    toy.tower(folder / "tower", layers=6)
    toy.collection(folder / "data", queries=200, titles=True)
    assert bartizan_train(NAME, folder, "run", "--limit", "3").exit_code == 0
    return folder


def as_it_was_run(bench: Path, path: Path) -> Recipe:
    """The recipe of a file, with what the fixture gave it."""
    return Recipe.load(path, tower=bench / "tower", data=bench / "data", limit=3).identified()


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
    assert query.dim == document.dim
    assert Tower.load(bench / "run/towers/query").backbone.config.num_hidden_layers == 2


def test_a_try_out_takes_no_more_steps_and_no_more_texts_than_asked(bench: Path) -> None:
    lines = [json.loads(line) for line in (bench / "run/metrics.jsonl").read_text().splitlines()]
    assert {line["stage"]: line["step"] for line in lines} == dict.fromkeys(range(1, 6), 3)
    step = Recipe.load(bench / "run/recipe.toml").steps[2]
    assert isinstance(step, DistilQuery)
    assert len(step.read((0, 3))) == 3 * step.batch_size
    with pytest.raises(WrongUse, match=r"steps.1.limit was 3, is 4"):
        bartizan_train(NAME, bench, "run", "--limit", "4", "--resume")


def test_a_seed_may_be_given(bench: Path, tmp_path: Path) -> None:
    path = toy.recipe(bench, toy.with_keys(toy.CONTRASTIVE, steps=1))
    words = [str(path), "--out", str(tmp_path / "run"), "--seed", "7"]
    assert CliRunner().invoke(program(), words, catch_exceptions=False).exit_code == 0
    assert Recipe.load(tmp_path / "run/recipe.toml").seed == 7


def test_the_towers_of_a_run_are_printed(bench: Path) -> None:
    shown = bartizan_train(NAME, bench, "run", "--limit", "3", "--resume")
    spec = TowerSpec.read(bench / "run/towers/query")
    assert f"query     {bench / 'run/towers/query'}  {spec.tower_id}" in shown.stdout
    assert f"space     {spec.space_id}" in shown.stdout


def test_the_resolved_recipe_is_the_one_that_was_run(bench: Path) -> None:
    run = as_it_was_run(bench, shipped()[NAME])
    assert Recipe.load(bench / "run/recipe.toml") == run
    assert run.identities == {"tower": TowerSpec.read(bench / "tower").tower_id}


def test_the_copy_of_a_shipped_recipe_finds_what_lies_beside_it(bench: Path) -> None:
    (bench / "mine.toml").write_text(shipped()[NAME].read_text())
    alone = Recipe.load(bench / "mine.toml")
    assert alone.steps[0].data.path == bench / "data"  # type: ignore[union-attr]
    assert as_it_was_run(bench, bench / "mine.toml") == Recipe.load(bench / "run/recipe.toml")


@pytest.mark.parametrize(
    ("recipe", "more", "message"),
    [
        (NAME, (), "exists already; go on with it by --resume"),
        ("scalingnot", (), "neither a file nor one of the shipped recipes"),
        (NAME, ("--data", "nowhere"), "--data nowhere is not a folder"),
        (NAME, ("--tower", "nowhere"), "--tower nowhere is not a folder"),
    ],
)
def test_wrong_use_is_explained(bench: Path, recipe: str, more: tuple[str, ...], message: str) -> None:
    with pytest.raises(WrongUse, match=message):
        bartizan_train(recipe, bench, "run", *more)


@pytest.mark.parametrize("more", [[], ["--tower", "minilm"]])
def test_a_shipped_recipe_says_what_it_needs(bench: Path, tmp_path: Path, more: list[str]) -> None:
    words = ["scalingnote", *more, "--out", str(tmp_path / "run")]
    with pytest.raises(WrongUse, match="recipe scalingnote names no data of its own; give --data BEIR_FOLDER"):
        CliRunner().invoke(program(), words, catch_exceptions=False)
    assert not (tmp_path / "run").exists()


def test_a_run_needs_a_folder(bench: Path) -> None:
    with pytest.raises(WrongUse, match="give --out RUN, the folder that the run makes; or --dry-run"):
        CliRunner().invoke(program(), [NAME, "--data", str(bench / "data")], catch_exceptions=False)


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
        "--data BEIR_FOLDER --out RUN",
        "--limit N",
        "--dry-run",
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


def test_ctrl_c_says_how_to_go_on_and_that_works(
    bench: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = toy.with_keys(toy.CONTRASTIVE, steps=1)
    words = ["train", str(toy.recipe(bench, few))]
    words += ["--out", str(bench / "broken-off"), "--threads", "1"]

    def broken_off(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(loop, "fit", broken_off)
        with pytest.raises(SystemExit) as ended:
            main(words)
    assert ended.value.code == 130
    assert "interrupted; go on with the same command and --resume" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main([*words, "--resume", "--quiet"])
    assert ended.value.code == 0
    assert capsys.readouterr().err == ""
    assert (bench / "broken-off/towers/query").is_dir()
