"""Tables of a TOML file: a number is a number, items count from 1, and what is wrong is said in words."""

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.base.tables import Table, Text, check

Above = Annotated[float, Field(gt=0)]


class Apple(Table):
    kind: Literal["apple"]
    count: int


class Pear(Table):
    kind: Literal["pear"]
    name: str = ""


Fruit = Annotated[Apple | Pear, Field(discriminator="kind")]


class File(Table):
    fruits: tuple[Fruit, ...] = ()
    best: Fruit | None = None
    weights: dict[str, Above] = Field(default={})
    at_least: Annotated[tuple[str, ...], Field(min_length=1)] = ("x",)
    seconds: Above = 1.0
    most: int | None = None
    either: int | str | bool = 0
    yes: bool = False
    place: Path | None = None
    named: Annotated[str, Field(min_length=1)] = "x"


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({"seconds": "30"}, "seconds: must be a number, but '30' came"),
        ({"yes": 1}, "yes: must be true or false, but 1 came"),
        ({"yes": "true"}, "yes: must be true or false, but 'true' came"),
        ({"place": ""}, "place: must be a path, but '' came"),
        ({"named": ""}, "named: must not be empty, but '' came"),
        ({"seconds": True}, "seconds: must be a number, but True came"),
        ({"seconds": Text("soon")}, "seconds: must be a number, but 'soon' came"),
        ({"most": "3"}, "most: must be a whole number, but '3' came"),
        ({"most": False}, "most: must be a whole number, but False came"),
        ({"most": 1.5}, "most: must be a whole number, but 1.5 came"),
        ({"weights": {"a": 1, "b": True}}, "weights.b: must be a number, but True came"),
        ({"weights": {"a": "2"}}, "weights.a: must be a number, but '2' came"),
        ({"weights": 3}, "weights: must be a table, but 3 came"),
        ({"at_least": []}, "at_least: must have at least 1 item"),
        ({"fruits": [{"kind": "plum"}]}, "fruits.1: the kind 'plum' is not known; there are 'apple', 'pear'"),
        ({"fruits": [{"kind": "pear"}, {}]}, "fruits.2: kind is missing: it says what this table is"),
        ({"best": {"kind": "apple"}}, "best.apple.count: is missing"),
        ({"best": {"kind": "apple", "count": True}}, "best.apple.count: must be a whole number, but True came"),
        (
            {"fruits": [{"kind": "pear", "nam": 1}]},
            "unknown key fruits.1.pear.nam; known here: kind, name",
        ),
    ],
)
def test_what_is_wrong_is_told_in_words(table: dict[str, Any], told: str) -> None:
    with pytest.raises(WrongUse) as refusal:
        check(File, table, Path("file.toml"))
    assert str(refusal.value) == f"file.toml: {told}"


def test_a_text_that_can_only_be_a_text_is_read_as_a_number() -> None:
    read = check(File, {"seconds": Text("2.5"), "most": Text("4"), "weights": {"a": Text("3")}}, Path("file.toml"))
    assert (read.seconds, read.most, read.weights) == (2.5, 4, {"a": 3.0})
    assert check(File, {"yes": Text("true")}, Path("f")).yes is True
    assert type(check(Pear, {"kind": "pear", "name": Text("x")}, Path("f")).name) is str


def test_where_a_text_or_a_truth_value_is_welcome_it_is_taken() -> None:
    assert [check(File, {"either": value}, Path("f")).either for value in ("3", True, 3)] == ["3", True, 3]
    assert check(File, {"seconds": 3}, Path("f")).seconds == 3.0
