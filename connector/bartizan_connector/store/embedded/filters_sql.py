"""Filters as SQL: the same grammar, every constant a bound parameter, the same meaning as `filters.matches`.

Text compares by its UTF-8 bytes, which is the order of Python's code points; a field is never NULL.
"""

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass

from bartizan_connector.store.collection import FieldType, Scalar
from bartizan_connector.store.embedded.layout import Layout
from bartizan_connector.store.filters import KEYS, And, Compare, Filter, In, Not, Or

_MANY = 100
"""A longer list of values lies in a table of its own: SQLite binds 32,766 parameters, and a filter has 256 parts."""


@dataclass(frozen=True, slots=True)
class Condition:
    """What follows WHERE, its parameters, and whether it needs the texts."""

    sql: str
    values: tuple[Scalar, ...]
    aside: bool
    lists: tuple[tuple[Scalar, ...], ...] = ()
    """Values for temporary tables of the connection, which a statement is asked with."""

    def prepare(self, connection: sqlite3.Connection) -> None:
        """Fill the tables that the condition looks into."""
        for number, values in enumerate(self.lists):
            connection.execute(f"CREATE TEMP TABLE IF NOT EXISTS {_list(number)} (value)")
            connection.execute(f"DELETE FROM temp.{_list(number)}")
            connection.executemany(f"INSERT INTO temp.{_list(number)} VALUES (?)", ((value,) for value in values))


def condition(filter: Filter | None, layout: Layout) -> Condition:
    """The filter, once it was checked, as SQL over `Layout.joined`."""
    if filter is None:
        return Condition("1", (), False)
    types: dict[str, FieldType] = {spec.name: spec.type for spec in layout.collection.fields}
    values: list[Scalar] = []
    lists: list[tuple[Scalar, ...]] = []
    used: set[str] = set()

    def stored(field: str, value: Scalar) -> Scalar:
        return float(value) if types.get(field) == "float" else value

    def bound(field: str, value: Scalar) -> str:
        values.append(stored(field, value))
        return "?"

    def column(field: str) -> str:
        name = f"main.{field}" if field in KEYS else layout.columns[field]
        used.add(name)
        return name

    def rendered(node: Filter) -> str:
        match node:
            case Compare(field, op, value):
                return f"{column(field)} {op} {bound(field, value)}"
            case In(field, many):
                distinct = dict.fromkeys(many)
                if len(distinct) > _MANY:
                    lists.append(tuple(stored(field, value) for value in distinct))
                    return f"{column(field)} IN (SELECT value FROM temp.{_list(len(lists) - 1)})"
                return f"{column(field)} IN ({', '.join(bound(field, value) for value in distinct)})"
            case And(parts):
                return _joined(" AND ", (rendered(part) for part in parts), "1")
            case Or(parts):
                return _joined(" OR ", (rendered(part) for part in parts), "0")
            case Not(part):
                return f"NOT ({rendered(part)})"

    sql = rendered(filter)
    return Condition(sql, tuple(values), "aside.f" in used, tuple(lists))


def _list(number: int) -> str:
    return f"values_{number}"


def _joined(word: str, parts: Iterator[str], empty: str) -> str:
    return word.join(f"({part})" for part in parts) or empty
