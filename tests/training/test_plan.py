"""What steps take from each other, and what is refused before the first of them runs."""

from pathlib import Path

import pytest

from bartizan_connector.base.errors import BartizanError, WrongUse
from bartizan_training import plan
from bartizan_training.loop import train
from bartizan_training.plan import Source
from bartizan_training.recipe import Recipe
from tests.training import toy
from tests.training.toy import CONTRASTIVE, DISTIL, REFINE, with_keys

MINE = 'kind = "mine"\npath = "data"'


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = toy.bench(tmp_path_factory.mktemp("bench"))
    toy.tower(folder / "narrow", layers=2, width=16, seed=5)
    return folder


def test_a_step_takes_the_newest_towers_unless_it_names_others(bench: Path) -> None:
    steps = (CONTRASTIVE, MINE, with_keys(CONTRASTIVE, negatives="mine", query="start.query", document="start"), REFINE)
    recipe = Recipe.load(toy.recipe(bench, *steps))
    assert recipe.step_names == ("contrastive", "mine", "contrastive-2", "refine")
    start = {role: Source("start", role) for role in ("document", "query")}
    first = {role: Source("contrastive", role) for role in ("document", "query")}
    newest = {role: Source("contrastive-2", role) for role in ("document", "query")}
    assert plan.sources(recipe) == (start, first, start | {"negatives": Source("mine", None)}, newest)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (
            (with_keys(CONTRASTIVE, document="contrastive"),),
            r"step 1 \('contrastive'\): document = '.*': no step before",
        ),
        ((CONTRASTIVE, with_keys(REFINE, query="tas_b.query")), r"called 'tas_b'; there are start, contrastive$"),
        (
            (MINE, with_keys(REFINE, document="mine")),
            r"document = 'mine': step 'mine' gives negatives, not towers",
        ),
        (
            (CONTRASTIVE, with_keys(REFINE, negatives="contrastive")),
            r"'contrastive' gives towers, not negatives",
        ),
        ((with_keys(CONTRASTIVE, document="start.teacher"),), r"towers hold only document, query"),
        (
            (CONTRASTIVE, with_keys(REFINE, document="start.document")),
            r"are towers of two spaces; take both from one",
        ),
        ((CONTRASTIVE, with_keys(DISTIL, layers=[0, 3])), r"step 2 \('distil_query'\): layers = \[0, 3\]: .* 0 to 2"),
        ((DISTIL, with_keys(DISTIL, layers=[1])), r"step 2 \('distil_query-2'\): layers = \[1\]: .* has 1: .* 0 to 0"),
        (
            (CONTRASTIVE + "loss = { matryoshka = [8, 32] }",),
            r"loss.matryoshka = \[8, 32\]: each must be smaller than the tower's 32 dimensions",
        ),
        ((DISTIL, CONTRASTIVE), r"step 2 \('contrastive'\): tied = true needs one tower"),
        ((DISTIL, with_keys(MINE, document="distil_query.query")), r"step 2 \('mine'\): .*query only"),
        (
            (CONTRASTIVE, with_keys(DISTIL, layers=None, student="narrow") + "\nloss = { w_tokens = 1 }"),
            r"step 2 \('distil_query'\): loss.w_tokens: .* differ in tokenizer, query prefix or length, or width",
        ),
        ((CONTRASTIVE, with_keys(REFINE, batch_size=5000)), r"step 2 \('refine'\): batch_size: a batch of 5000 needs"),
        ((CONTRASTIVE, REFINE.replace('"data" }', '"data", split = "dev" }')), r"step 2 \('refine'\): data: .*'dev'"),
        ((CONTRASTIVE, DISTIL.replace("train", "dev")), r"step 2 \('distil_query'\): texts: .*no split 'dev'"),
        ((CONTRASTIVE, REFINE.replace('"data"', '"nowhere"')), r"the recipe's steps\.2\.data\.path names"),
    ],
)
def test_whatever_can_be_refused_is_refused_before_the_first_step(
    bench: Path, tmp_path: Path, steps: tuple[str, ...], message: str
) -> None:
    with pytest.raises(BartizanError, match=message):
        train(Recipe.load(toy.recipe(bench, *steps)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "steps",
    [
        (with_keys(CONTRASTIVE, name="one"), with_keys(CONTRASTIVE, name="one")),
        (with_keys(CONTRASTIVE, name="start"),),
        (CONTRASTIVE, with_keys(REFINE, name="contrastive")),
    ],
)
def test_two_steps_of_one_name_are_refused(bench: Path, steps: tuple[str, ...]) -> None:
    with pytest.raises(WrongUse, match="each step needs a name of its own, other than 'start'"):
        Recipe.load(toy.recipe(bench, *steps))


def test_negatives_come_from_one_place(bench: Path) -> None:
    text = with_keys(CONTRASTIVE, data=None, negatives="mine") + '\ndata = { path = "data", negatives = "mined.jsonl" }'
    with pytest.raises(WrongUse, match=r"negatives = 'mine' and data.negatives = .*: give one of them"):
        Recipe.load(toy.recipe(bench, MINE, text))
