"""The filter grammar: what it takes, what it refuses, and what a filter means."""

import random
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.store.collection import Collection, FieldSpec, Leg, is_of_type
from bartizan_connector.store.filters import (
    MAX_COMPARISONS,
    MAX_DEPTH,
    MAX_FILTER_CHARS,
    And,
    Compare,
    Filter,
    In,
    Not,
    Or,
    check,
    matches,
    parse,
)
from tests.connector.store.congruence import VALUES, random_filter

COLLECTION = Collection(
    name="c",
    legs=(Leg(name="dense", kind="dense", dim=1, space_id="s"),),
    fields=(
        FieldSpec(name="title", type="string"),
        FieldSpec(name="year", type="int"),
        FieldSpec(name="price", type="float"),
        FieldSpec(name="fresh", type="bool"),
    ),
)


@pytest.mark.parametrize(
    ("text", "filter"),
    [
        ("year == 1", Compare("year", "==", 1)),
        ("1 < year", Compare("year", ">", 1)),
        ("-1 <= year", Compare("year", ">=", -1)),
        ("1 <= year < 3", And((Compare("year", ">=", 1), Compare("year", "<", 3)))),
        ('title != "it\'s"', Compare("title", "!=", "it's")),
        ("fresh", Compare("fresh", "==", True)),
        ("not fresh", Not(Compare("fresh", "==", True))),
        ("fresh == false", Compare("fresh", "==", False)),
        ("fresh != True", Compare("fresh", "!=", True)),
        ("price > 1e3", Compare("price", ">", 1000.0)),
        ("id in ['a', 'b']", In("id", ("a", "b"))),
        ("year not in (1, 2)", Not(In("year", (1, 2)))),
        ("year in []", In("year", ())),
        (
            "a == 1 and b == 2 or not (c == 3)",
            Or((And((Compare("a", "==", 1), Compare("b", "==", 2))), Not(Compare("c", "==", 3)))),
        ),
        ("  year == 1  ", Compare("year", "==", 1)),
    ],
)
def test_the_text_form_is_read(text: str, filter: Filter) -> None:
    assert parse(text) == filter


@pytest.mark.parametrize(
    "text",
    [
        "", "year", "year = 1", "year == ", "year == other", "1 == 1", "year is 1", "f(year)", "year.real == 1",
        "year + 1 == 2", "[y for y in year]", "lambda: 1", "year == None", "year == 1j", "title == b'x'",
        "title == f'{year}'", "year in range(3)", "year in ['a', *title]", "x := 1", "__import__('os').system('true')",
        "year == 1; year == 2", "year == 1 # comment\nor True", "a if b else c", "year == +1", "year == --1",
        "true == fresh", "true", "(year, 1)", "year == 1,", "year == " + "9" * 5000, "\x00", "title == '\ud800'",
        "(" * 500 + "year == 1" + ")" * 500, "not " * 5000 + "fresh", "year == 1\nor 2", "…", "title == 'a" ,
        "year == 0777", "year in [[1]]", "year in {1}", "{**year}", "await x", "yield", "year < title",
    ],
)  # fmt: skip
def test_what_is_outside_the_grammar_is_refused_by_parse_or_check(text: str) -> None:
    with pytest.raises(WrongUse):
        check(parse(text), COLLECTION)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("colour == 'red'", "unknown field 'colour'"),
        ("year == '1'", "year' is a int"),
        ("year == 1.0", "year' is a int"),
        ("year == True", "year' is a int"),
        ("year == 9223372036854775808", "year' is a int"),
        ("price == 1e999", "price' is a float"),
        ("price == 9007199254740993", "price' is a float"),
        ("fresh == 1", "fresh' is a bool"),
        ("fresh < True", "== and != only"),
        ("title in ['a', 1]", "title' is a string"),
        (r"title == '\ud800'", "title' is a string"),
        ("year", "year' is a int"),
    ],
)
def test_a_filter_of_another_type_is_refused_with_the_field(text: str, words: str) -> None:
    with pytest.raises(WrongUse, match=words):
        check(parse(text), COLLECTION)


def test_size_and_depth_are_bounded_for_texts_and_for_programs() -> None:
    with pytest.raises(WrongUse, match="characters"):
        parse("year == 1 or " * MAX_FILTER_CHARS)
    many = Or(tuple(Compare("year", "==", i) for i in range(MAX_COMPARISONS)))
    check(many, COLLECTION)
    with pytest.raises(WrongUse, match="use 'in'"):
        check(Or((many, Compare("year", "==", 0))), COLLECTION)
    deep: Filter = Compare("year", "==", 1)
    for _ in range(MAX_DEPTH - 1):
        deep = Not(deep)
    check(deep, COLLECTION)
    for _ in range(100_000):
        deep = Not(deep)
    with pytest.raises(WrongUse, match="flatter"):
        check(deep, COLLECTION)


@given(st.text(max_size=60) | st.text(alphabet=string.printable + "éß\u2028\ud800", max_size=80))
def test_no_text_does_anything_but_parse_or_be_refused(text: str) -> None:
    _only_wrong_use(text)


_TOKENS = st.sampled_from(
    ["year", "title", "fresh", "price", "id", "and", "or", "not", "in", "==", "!=", "<", ">=", "(", ")", "[", "]", ",",
     "1", "-1", "2.5", "'a'", '"b"', "True", "false", "None", "is", ".", "*", "lambda", ":", "if", "else", "\n", "\\"]
)  # fmt: skip


@given(st.lists(_TOKENS, max_size=14).map(" ".join))
@settings(max_examples=300)
def test_no_sequence_of_words_does_anything_but_parse_or_be_refused(text: str) -> None:
    _only_wrong_use(text)


@given(dice=st.randoms(use_true_random=False))
def test_every_filter_means_the_same_as_its_text_read_by_python(dice: random.Random) -> None:
    """The grammar is Python's, so Python itself is the oracle."""
    filter = random_filter(dice)
    check(filter, COLLECTION)
    text = _as_python(filter)
    parsed = parse(text) if text else filter
    for _ in range(5):
        row = {"id": dice.choice("ab"), **{name: dice.choice(values) for name, values in VALUES.items()}}
        assert matches(filter, row) is matches(parsed, row) is bool(eval(text, {}, dict(row)))


@pytest.mark.parametrize(
    ("value", "kind", "fits"),
    [
        ("a", "string", True), (1, "string", False), ("\ud83d\ude00", "string", False), ("😀", "string", True),
        (True, "bool", True), (1, "bool", False), (True, "int", False), (2**63 - 1, "int", True),
        (-(2**63) + 1, "int", True), (-(2**63), "int", False), (2**63, "int", False), (1.0, "int", False),
        (1, "float", True), (True, "float", False), (float("nan"), "float", False), (float("-inf"), "float", False),
        (10**400, "float", False), (2**53, "float", True), (2**53 + 1, "float", False), (None, "float", False),
    ],
)  # fmt: skip
def test_a_value_fits_a_field_when_every_store_can_hold_it(value: object, kind: str, fits: bool) -> None:
    assert is_of_type(value, kind) is fits  # type: ignore[arg-type]


def _only_wrong_use(text: str) -> None:
    try:
        filter = parse(text)
        check(filter, COLLECTION)
    except WrongUse:
        return
    matches(filter, {"id": "a", "title": "a", "year": 1, "price": 1.0, "fresh": True})


def _as_python(filter: Filter) -> str:
    match filter:
        case Compare(field, op, value):
            return f"({field} {op} {value!r})"
        case In(field, values):
            return f"({field} in {list(values)!r})"
        case And(parts):
            return f"({' and '.join(map(_as_python, parts))})" if parts else "(year in [] or year not in [])"
        case Or(parts):
            return f"({' or '.join(map(_as_python, parts))})" if parts else "(year in [])"
        case Not(part):
            return f"(not {_as_python(part)})"


@pytest.mark.parametrize(
    "filter",
    [
        And(({"year": 2},)),
        And(5),
        Or([Compare("year", "==", 1)]),
        Not(None),
        In("title", "abc"),
        Compare("year", "~", 1),
    ],  # type: ignore[arg-type]
    ids=repr,
)
def test_a_filter_made_of_something_else_is_refused(filter: Filter) -> None:
    with pytest.raises(WrongUse, match=r"is no part of a filter; give|compares nothing in a filter; give"):
        check(filter, COLLECTION)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "it is empty"),
        ("year = 2000", "it goes wrong at '= 2000': equality is written =="),
        ("year >", "it ends after '>', where something must follow"),
        ("== 3", "it goes wrong at '== 3': a comparison has something on both sides"),
        ("year == 2000 and", "it ends after 'and', where something must follow"),
        ("year == 2000 && new", "it goes wrong at '&& new': write and"),
        ("year == 2000 || new", r"it goes wrong at '\|\| new': write or"),
        ("year == 2000 AND new", "it goes wrong at 'AND new': write and in small letters"),
        ("(year == 2000", r"'\(' was never closed"),
        ("year == 2000)", r"unmatched '\)'"),
        ("year in 2000", r"after in comes a list such as \[1, 2\], not '2000'"),
        ("title like 'e%'", "it goes wrong at \"like 'e%'\""),
        ("title == 'en", "a quote is not closed"),
        ("title == en", "'en' is no value: put a text in quotes"),
        ("a.b == 3", "'a.b' is not part of the filter grammar"),
        ("3 == 3", "neither '3' nor '3' is a field"),
        ("year == 3; x", "it goes wrong at '; x': a filter is one condition"),
        ("title in ['a' 'b']", "'a' and 'b' stand side by side: put a comma between two texts"),
        ("title == 'it''s'", "'it' and 's' stand side by side"),
    ],
)
def test_the_piece_at_fault_is_named_and_what_was_probably_meant(text: str, words: str) -> None:
    with pytest.raises(WrongUse, match=words) as refusal:
        parse(text)
    assert "<unknown>" not in str(refusal.value)
    assert "write it like: year >= 2020" in str(refusal.value)
