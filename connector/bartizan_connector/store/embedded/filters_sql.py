"""Filters as SQL: the same grammar, every constant a bound parameter, the same meaning as `filters.matches`.

Text compares by its UTF-8 bytes, which is the order of Python's code points; a field is never NULL.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.store.collection import FieldType, Scalar
from bartizan_connector.store.embedded.layout import Layout
from bartizan_connector.store.filters import And, Compare, Filter, In, Not, Or

MAX_VALUES = 30_000
"""Different values of one filter: SQLite binds 32,766 parameters."""


@dataclass(frozen=True, slots=True)
class Condition:
    """What follows WHERE, its parameters, and whether it needs the texts."""

    sql: str
    values: tuple[Scalar, ...]
    aside: bool


def condition(filter: Filter | None, layout: Layout) -> Condition:
    """The filter, once it was checked, as SQL over `Layout.joined`."""
    if filter is None:
        return Condition("1", (), False)
    types: dict[str, FieldType] = {spec.name: spec.type for spec in layout.collection.fields}
    values: list[Scalar] = []
    used: set[str] = set()

    def bound(field: str, value: Scalar) -> str:
        values.append(float(value) if types.get(field) == "float" else value)
        return "?"

    def column(field: str) -> str:
        name = "main.id" if field == "id" else layout.columns[field]
        used.add(name)
        return name

    def rendered(node: Filter) -> str:
        match node:
            case Compare(field, op, value):
                return f"{column(field)} {op} {bound(field, value)}"
            case In(field, many):
                distinct = dict.fromkeys(many)
                return f"{column(field)} IN ({', '.join(bound(field, value) for value in distinct)})"
            case And(parts):
                return _joined(" AND ", (rendered(part) for part in parts), "1")
            case Or(parts):
                return _joined(" OR ", (rendered(part) for part in parts), "0")
            case Not(part):
                return f"NOT ({rendered(part)})"

    sql = rendered(filter)
    if len(values) > MAX_VALUES:
        raise WrongUse(f"the filter has {len(values)} different values; at most {MAX_VALUES} are taken here")
    return Condition(sql, tuple(values), "aside.f" in used)


def _joined(word: str, parts: Iterator[str], empty: str) -> str:
    return word.join(f"({part})" for part in parts) or empty
