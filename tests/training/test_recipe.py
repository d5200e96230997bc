"""Recipes: what is read, what is refused in which words, and what is written back."""

import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bartizan_connector.base.errors import WrongUse
from bartizan_training import toml
from bartizan_training.recipe import Recipe, differences, find, shipped
from bartizan_training.settings import CorpusSentences, Queries, Training
from bartizan_training.stages.contrastive import Contrastive
from bartizan_training.stages.distil_query import DistilQuery
from tests.training.toy import CONTRASTIVE, DISTIL, REFINE, recipe, with_keys


def load(folder: Path, *stages: str, head: str = "") -> Recipe:
    return Recipe.load(recipe(folder, *stages, head=head))


def test_a_recipe_lists_its_steps_in_order_with_defaults(tmp_path: Path) -> None:
    read = load(tmp_path, CONTRASTIVE, DISTIL, REFINE)
    assert [step.kind for step in read.steps] == ["contrastive", "distil_query", "refine"]
    assert isinstance(read.steps[0], Contrastive)
    assert read.steps[0].tied
    assert (read.seed, read.steps[0].loss.mask_known) == (0, True)


def test_relative_paths_are_relative_to_the_recipe(tmp_path: Path) -> None:
    text = DISTIL.replace('[{ kind = "queries", path = "data"', '[{ kind = "queries", path = "../data"')
    read = load(tmp_path / "deep" if (tmp_path / "deep").mkdir() is None else tmp_path, text)
    stage = read.steps[0]
    assert isinstance(stage, DistilQuery)
    assert read.tower == tmp_path / "deep/tower"
    assert stage.texts[0].path == tmp_path / "data"


def test_the_command_line_can_put_another_tower_and_other_data_in_place(tmp_path: Path) -> None:
    texts = 'texts = [{ kind = "corpus_sentences", path = "a", count = 5 }, { kind = "lines", path = "log.txt" }]'
    path = recipe(tmp_path, CONTRASTIVE, with_keys(DISTIL, texts=None) + f"\n{texts}", head='query_tower = "q"')
    read = Recipe.load(path, tower=tmp_path / "t", data=tmp_path / "d")
    first, second = read.steps
    assert isinstance(first, Contrastive)
    assert isinstance(second, DistilQuery)
    assert (read.tower, read.query_tower) == (tmp_path / "t", None)
    assert first.data.path == tmp_path / "d"
    assert [source.path for source in second.texts] == [tmp_path / "d", tmp_path / "log.txt"]


def test_a_written_recipe_reads_as_the_same_from_anywhere(tmp_path: Path) -> None:
    read = load(tmp_path, CONTRASTIVE, DISTIL, REFINE, head="seed = 5")
    elsewhere = tmp_path / "elsewhere" / "recipe.toml"
    elsewhere.parent.mkdir()
    elsewhere.write_text(read.to_toml(), encoding="utf-8")
    assert Recipe.load(elsewhere) == read
    assert differences(tomllib.loads(read.to_toml()), tomllib.loads(Recipe.load(elsewhere).to_toml())) == []


@pytest.mark.parametrize(
    ("stage", "head", "message"),
    [
        (CONTRASTIVE, "sead = 1", r"unknown key sead; known here: identities, name, query_tower, seed, steps, tower$"),
        (with_keys(CONTRASTIVE, learning_rat=1), "", r"unknown key steps.1.contrastive.learning_rat; known .*tied"),
        (
            CONTRASTIVE + "loss = { temprature = 1 }",
            "",
            r"loss.temprature; known here: bidirectional, mask_known, mask_m",
        ),
        (
            DISTIL + "loss = { w_cosine = 1 }",
            "",
            r"distil_query.loss.w_cosine; known here: mse_on, mse_reduction, w_cos",
        ),
        (with_keys(CONTRASTIVE, layers=[0]), "", r"unknown key steps.1.contrastive.layers; known here: accumulate"),
        (
            with_keys(CONTRASTIVE, kind="contrasive"),
            "",
            r"steps.1: .*'contrasive'.*'contrastive', 'distil_query', 'refine', .*'mine'",
        ),
        (with_keys(CONTRASTIVE, steps=None), "", r"give either steps or epochs"),
        (with_keys(CONTRASTIVE, epochs=3), "", r"give either steps or epochs"),
        (with_keys(CONTRASTIVE, steps=0), "", r"steps.1.contrastive.steps: .* greater than or equal to 1"),
        (with_keys(CONTRASTIVE, learning_rate=None), "", r"learning_rate: is missing"),
        (with_keys(CONTRASTIVE, warmup=1.5), "", r"warmup: .* less than or equal to 1"),
        (with_keys(CONTRASTIVE, learning_rate=None) + "\nlearning_rate = inf", "", r"learning_rate: .*finite"),
        (with_keys(DISTIL, layers=None), "", r"give either layers or student"),
        (with_keys(DISTIL, student="x"), "", r"give either layers or student"),
        (with_keys(DISTIL, texts=[]), "", r"texts: .* at least 1 item"),
        (DISTIL + "loss = { w_cos = 0 }", "", r"nothing would be learned"),
        (
            DISTIL.replace("split", "splitt"),
            "",
            r"texts.1.queries.splitt; known here: held_out_split, kind, path, split$",
        ),
        ("", "", r"steps.1: kind is missing: it says what this table is"),
    ],
)
def test_what_is_wrong_is_named_with_the_way_out(tmp_path: Path, stage: str, head: str, message: str) -> None:
    with pytest.raises(WrongUse) as refusal:
        load(tmp_path, stage, head=head)
    assert re.search(message, str(refusal.value)), refusal.value
    assert refusal.value.exit_code == 2


def test_spans_longer_at_least_than_at_most_are_refused() -> None:
    with pytest.raises(ValueError, match="min_words = 9 is above max_words = 8"):
        CorpusSentences(kind="corpus_sentences", path=Path("x"), count=1, min_words=9, max_words=8)


def test_the_length_of_a_stage_follows_from_epochs() -> None:
    table = {"learning_rate": 1, "epochs": 2.5, "accumulate": 2}
    assert Training.model_validate(table).length(100) == 125
    assert Training.model_validate(table | {"epochs": 0.001}).length(10) == 1


def test_a_shipped_recipe_is_found_by_name_and_a_file_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find("scalingnote") == shipped()["scalingnote"]
    (tmp_path / "scalingnote").write_text("", encoding="utf-8")
    assert find("scalingnote") == Path("scalingnote")
    with pytest.raises(WrongUse, match=r"neither a file nor one of the shipped recipes: .*scalingnote"):
        find("scalingnot.toml")


@pytest.mark.parametrize("name", sorted(shipped()))
def test_every_shipped_recipe_is_valid(name: str) -> None:
    assert Recipe.load(shipped()[name]).name == name


def test_a_change_deep_inside_a_recipe_is_found() -> None:
    old = {"a": 1, "steps": [{"x": {"y": 1}}, {"z": [1, 2]}], "gone": 0}
    new = {"a": 1, "steps": [{"x": {"y": 2}}, {"z": [1]}], "new": "t"}
    assert differences(old, new) == [
        "gone was 0, is None",
        "new was None, is 't'",
        "steps.1.x.y was 1, is 2",
        "steps.2.z was [1, 2], is [1]",
    ]


scalars = st.one_of(
    st.text(st.characters(codec="utf-8")), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False)
)
keys = st.text(st.characters(codec="utf-8"), max_size=8)
tables = st.recursive(
    st.dictionaries(keys, scalars, max_size=3),
    lambda inner: st.dictionaries(
        keys, st.one_of(scalars, inner, st.lists(scalars, max_size=3), st.lists(inner, max_size=2))
    ),
    max_leaves=8,
)


@given(tables)
def test_what_is_written_as_toml_reads_back_equal(tree: dict[str, object]) -> None:
    assert tomllib.loads(toml.dump(tree)) == tree


def test_nothing_is_written_for_none() -> None:
    assert tomllib.loads(toml.dump({"a": None, "b": {"c": None}, "d": [{"e": None}]})) == {"b": {}, "d": [{}]}


def test_text_sources_keep_their_defaults() -> None:
    assert Queries(kind="queries", path=Path("x")).split == "all"
