"""A run may start from a published model by name: imported once into the run, and found there again."""

from pathlib import Path

import pytest

from bartizan_connector.base.errors import SpaceMismatch, WrongUse
from bartizan_connector.space.spec import TowerSpec
from bartizan_training import starting
from bartizan_training.loop import train
from bartizan_training.recipe import Recipe
from bartizan_training.settings import Published
from tests.encoders import published
from tests.training import toy
from tests.training.toy import CONTRASTIVE, with_keys

STEP = with_keys(CONTRASTIVE, steps=2, max_tokens=16)


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    """Data, and a published causal language model in `model`."""
    toy.collection(tmp_path / "data", queries=80)
    published.hugging_face(tmp_path / "model", "llama", head=True, most=64)
    return tmp_path


def with_model(bench: Path, tower: str, step: str = STEP) -> Path:
    path = toy.recipe(bench, step)
    path.write_text(path.read_text().replace('tower = "tower"', "") + f"\n[tower]\n{tower}\n")
    return path


def test_a_published_model_is_imported_once_into_the_run(bench: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = with_model(bench, f'source = "{bench / "model"}"\nlayers = [1]\nquery_prefix = "query: "\nmax_tokens = 32')
    train(Recipe.load(path), bench / "run")
    (start,) = bench.glob("run/artefacts/start-towers/*")
    spec = TowerSpec.read(start / "query")
    assert spec == TowerSpec.read(start / "document")
    assert (spec.roles["query"].prefix, spec.roles["query"].max_tokens) == ("query: ", 32)
    monkeypatch.setattr(starting, "import_tower", None)
    train(Recipe.load(path), bench / "run", resume=True)
    assert TowerSpec.read(bench / "run/towers/query").roles == spec.roles
    again = Recipe.load(bench / "run/recipe.toml")
    assert again.tower == start / "document"
    assert again.identities == {"tower": spec.tower_id}


def test_another_model_is_another_recipe(bench: Path) -> None:
    train(Recipe.load(with_model(bench, f'source = "{bench / "model"}"')), bench / "run")
    other = Recipe.load(with_model(bench, f'source = "{bench / "model"}"\nlayers = [0]'))
    with pytest.raises(SpaceMismatch, match="is another tower now"):
        train(other, bench / "run", resume=True)


def test_a_refused_run_leaves_its_import_to_the_mended_one(bench: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = f'source = "{bench / "model"}"'
    with pytest.raises(WrongUse, match="a batch of 4000 needs as many examples"):
        train(Recipe.load(with_model(bench, model, with_keys(STEP, batch_size=4000))), bench / "run")
    assert not (bench / "run/recipe.toml").exists()
    monkeypatch.setattr(starting, "import_tower", None)
    train(Recipe.load(with_model(bench, model)), bench / "run")
    assert (bench / "run/towers/query").is_dir()


def test_nothing_is_imported_into_a_folder_that_is_no_run(bench: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starting, "import_tower", None)
    with pytest.raises(WrongUse, match="exists and is not a run"):
        train(Recipe.load(with_model(bench, f'source = "{bench / "model"}"')), bench / "data")


@pytest.mark.parametrize("name", ["minilm", "smollm2", "some/model"])
def test_a_text_may_name_a_model(bench: Path, name: str) -> None:
    path = toy.recipe(bench, STEP)
    path.write_text(path.read_text().replace('"tower"', f'"{name}"'))
    assert Recipe.load(path).tower == Published(source=name)
    assert Recipe.load(toy.recipe(bench, STEP), tower=name).tower == Published(source=name)
    (bench / name).mkdir(parents=True)
    path = toy.recipe(bench, STEP)
    path.write_text(path.read_text().replace('"tower"', f'"{name}"'))
    assert Recipe.load(path).tower == bench / name


def test_another_model_is_imported_as_the_recipe_imports_its_own(bench: Path) -> None:
    path = with_model(bench, 'source = "smollm2"\nkind = "sparse"')
    assert Recipe.load(path, tower="some/model").tower == Published(source="some/model", kind="sparse")
    assert Recipe.load(path, tower=bench / "t").tower == bench / "t"


@pytest.mark.parametrize("name", ["tower", "../towers/minilm", "/somewhere/else", "a/b/c"])
def test_any_other_text_is_a_path(bench: Path, name: str) -> None:
    path = toy.recipe(bench, STEP)
    path.write_text(path.read_text().replace('"tower"', f'"{name}"'))
    assert isinstance(Recipe.load(path).tower, Path)
