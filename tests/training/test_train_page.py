"""docs/recipes.md: its tables are the recipe's tables, and its example is a recipe."""

import re
import types
import typing
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from bartizan_training import settings
from bartizan_training.data.pair_tables import PairRecords
from bartizan_training.mine.exact import Mine
from bartizan_training.recipe import Recipe
from bartizan_training.settings import Training
from bartizan_training.stages.adapt import Adapt, NextToken
from bartizan_training.stages.calibrate import Calibrate
from bartizan_training.stages.contrastive import Contrastive
from bartizan_training.stages.distil_query import DistilQuery
from bartizan_training.stages.refine import Refine
from bartizan_training.stages.splade import Splade
from bartizan_training.step import FromTowers

PAGE = Path(__file__).parents[2] / "docs/recipes.md"
TABLES: dict[str, type[BaseModel]] = {
    "The recipe": Recipe,
    "Every step": FromTowers,
    "Every step that trains": Training,
    "contrastive": Contrastive,
    "distil_query": DistilQuery,
    "refine": Refine,
    "mine": Mine,
    "adapt": Adapt,
    "calibrate": Calibrate,
    "splade": Splade,
    "data": settings.PairsTable,
    "data: records": PairRecords,
    "texts: queries": settings.Queries,
    "texts: documents": settings.Documents,
    "texts: lines": settings.Lines,
    "texts: corpus_sentences": settings.CorpusSentences,
    "loss: InfoNCE": settings.InfoNce,
    "loss: alignment": settings.Alignment,
    "loss: next token": NextToken,
    "flops": settings.Flops,
    "early_stop": settings.EarlyStop,
    "lora": settings.Lora,
    "tower": settings.Published,
}


def rendered(model: type[BaseModel], said_before: tuple[type[BaseModel], ...] = (FromTowers, Training)) -> list[str]:
    """The table's rows as a page must have them; what is said for many kinds at once is not said again for each."""
    bases = [base for base in said_before if issubclass(model, base) and model is not base]
    said = {key for base in bases for key in base.model_fields} | {"kind"}
    return [
        f"| `{key}` | {value_of(field.annotation)} | {default_of(field)} | {field.description} |"
        for key, field in model.model_fields.items()
        if key not in said
    ]


def value_of(annotation: Any) -> str:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "table"
    if get_origin(annotation) is Literal:
        return " or ".join(f'`"{choice}"`' for choice in get_args(annotation))
    if get_origin(annotation) is dict:
        return "table"
    if get_origin(annotation) is tuple:
        return f"list of {value_of(get_args(annotation)[0])}s"
    if get_origin(annotation) is typing.Annotated:
        return value_of(get_args(annotation)[0])
    if get_origin(annotation) in (typing.Union, types.UnionType):
        return value_of(next(part for part in get_args(annotation) if part is not types.NoneType))
    return {int: "whole number", float: "number", bool: "yes or no", str: "text", Path: "path"}[annotation]


def default_of(field: FieldInfo) -> str:
    default = field.default
    if default is PydanticUndefined:
        return "*needed*"
    if default is None or isinstance(default, BaseModel):
        return ""
    return (
        {True: "`true`", False: "`false`"}[default] if isinstance(default, bool) else f"`{default!r}`".replace("'", '"')
    )


@pytest.mark.parametrize("heading", TABLES)
def test_the_table_under_each_heading_is_the_recipes(heading: str) -> None:
    section = re.split(r"^#+ ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    (found,) = [part for part in section if part.split("\n")[0].strip("`") == heading]
    rows = [line for line in found.split("\n") if line.startswith("| `")]
    expected = rendered(TABLES[heading])
    assert rows == expected, "the page should say:\n" + "\n".join(expected)


def test_every_key_has_a_meaning() -> None:
    for model in TABLES.values():
        assert all(field.description for field in model.model_fields.values())


def test_the_example_is_a_recipe(tmp_path: Path) -> None:
    example, *steps = re.findall(r"```toml\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    for step in steps:
        (tmp_path / "step.toml").write_text(f'name = "x"\ntower = "tower"\n{step}', encoding="utf-8")
        assert Recipe.load(tmp_path / "step.toml").steps
    (tmp_path / "recipe.toml").write_text(example, encoding="utf-8")
    assert [step.kind for step in Recipe.load(tmp_path / "recipe.toml").steps] == [
        "contrastive",
        "mine",
        "contrastive",
        "distil_query",
        "refine",
    ]
