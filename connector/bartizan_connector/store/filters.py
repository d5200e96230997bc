"""Filters: a small typed grammar, parsed once and then either evaluated here or rendered by a back-end.

The text form is a subset of Python's expressions: `year >= 2020 and kind in ["class", "function"] and not deprecated`.
Fields compare with constants of their own type by == != < <= > >=, `in` and `not in`; `and`, `or`, `not` and
parentheses combine them. A filter is parsed into values, never passed on as text, so nothing in it can be injected.
"""

import ast
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.store.collection import Collection, FieldType, Scalar, is_of_type
from bartizan_connector.store.filter_faults import joined_texts, of_syntax, told

Operator = Literal["==", "!=", "<", "<=", ">", ">="]

KEYS: Mapping[str, FieldType] = {"id": "string", "chunk": "int"}
"""What a filter can name beside the collection's fields."""
MAX_FILTER_CHARS = 200_000
MAX_COMPARISONS = 256
"""A server's parser takes quadratic time; a long list of values is one `in`."""
MAX_DEPTH = 32
"""Milvus fails at 49 levels, some of which joining many parts takes."""
_OPERATORS: dict[type[ast.cmpop], Operator] = {
    ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=",
}  # fmt: skip
_MIRRORED: dict[Operator, Operator] = {"==": "==", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_EVALUATE: dict[Operator, Callable[[Any, Any], bool]] = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Compare:
    """`field op value`"""

    field: str
    op: Operator
    value: Scalar


@dataclass(frozen=True, slots=True)
class In:
    """`field in [values]`"""

    field: str
    values: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class And:
    """Every part holds."""

    parts: tuple["Filter", ...]


@dataclass(frozen=True, slots=True)
class Or:
    """At least one part holds."""

    parts: tuple["Filter", ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The part does not hold."""

    part: "Filter"


Filter = Compare | In | And | Or | Not


def matches(filter: Filter, fields: Mapping[str, Scalar]) -> bool:
    """Whether a row with these fields (`id` and `chunk` among them) passes."""
    match filter:
        case Compare(field, op, value):
            return _EVALUATE[op](fields[field], value)
        case In(field, values):
            return fields[field] in values
        case And(parts):
            return all(matches(part, fields) for part in parts)
        case Or(parts):
            return any(matches(part, fields) for part in parts)
        case Not(part):
            return not matches(part, fields)


def check(filter: Filter, collection: Collection) -> None:
    """Refuse a filter that names an unknown field or compares it with a constant of another type."""
    types: dict[str, FieldType] = {**KEYS, **{spec.name: spec.type for spec in collection.fields}}
    for leaf in leaves(filter):
        if leaf.field not in types:
            raise WrongUse(f"unknown field '{leaf.field}' in the filter; the collection has {', '.join(sorted(types))}")
        kind = types[leaf.field]
        if isinstance(leaf, Compare) and kind == "bool" and leaf.op not in ("==", "!="):
            raise WrongUse(f"field '{leaf.field}' is a bool: it can be compared with == and != only, not {leaf.op}")
        for value in leaf.values if isinstance(leaf, In) else (leaf.value,):
            if not is_of_type(value, kind):
                raise WrongUse(f"field '{leaf.field}' is a {kind}, but the filter compares it with {value!r}")


def parse(text: str) -> Filter:
    """Read the text form; anything outside the grammar is refused with the offending piece."""
    if len(text) > MAX_FILTER_CHARS:
        raise WrongUse(f"the filter has {len(text)} characters; at most {MAX_FILTER_CHARS} are taken")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        if joined := joined_texts(text.strip()):
            raise ValueError(joined)
        return _Parser(text.strip()).filter(tree)
    except SyntaxError as error:
        raise WrongUse(told(text, of_syntax(text.strip(), error))) from error
    except (RecursionError, MemoryError) as error:
        raise WrongUse(told(text, "it nests too deep")) from error
    except ValueError as error:
        raise WrongUse(told(text, str(error))) from error


def leaves(filter: Filter) -> Iterator[Compare | In]:
    """Every comparison, without recursion: a filter may come from a program as well as from `parse`."""
    waiting: list[tuple[Filter, int]] = [(filter, 1)]
    comparisons = 0
    while waiting:
        node, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise WrongUse(f"the filter nests deeper than {MAX_DEPTH} levels; write it flatter")
        match node:
            case And(tuple() as parts) | Or(tuple() as parts):
                waiting.extend((part, depth + 1) for part in parts)
            case Not(part):
                waiting.append((part, depth + 1))
            case Compare(op=op) if op not in _EVALUATE:
                raise WrongUse(f"{op!r:.80} compares nothing in a filter; give one of {' '.join(_EVALUATE)}")
            case Compare() | In(values=tuple()):
                comparisons += 1
                if comparisons > MAX_COMPARISONS:
                    raise WrongUse(f"the filter has more than {MAX_COMPARISONS} comparisons; use 'in' for many values")
                yield node
            case _:
                raise WrongUse(
                    f"{node!r:.80} is no part of a filter; give Compare, In (a tuple), And or Or (a tuple), or Not"
                )


class _Parser:
    """Python's syntax tree → Filter, refusing every node that the grammar does not have."""

    def __init__(self, text: str) -> None:
        self._text = text

    def filter(self, node: ast.expr) -> Filter:
        match node:
            case ast.BoolOp(op=op, values=values):
                parts = tuple(self.filter(value) for value in values)
                return And(parts) if isinstance(op, ast.And) else Or(parts)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return Not(self.filter(operand))
            case ast.Name(id=name) if name not in ("true", "false"):
                return Compare(name, "==", True)
            case ast.Compare(left=left, ops=ops, comparators=comparators):
                sides = [left, *comparators]
                parts = tuple(self._compare(sides[i], op, sides[i + 1]) for i, op in enumerate(ops))
                return parts[0] if len(parts) == 1 else And(parts)
        raise self._refusal(node)

    def _compare(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> Filter:
        match left, op, right:
            case ast.Name(id=name), ast.In() | ast.NotIn(), ast.List(elts=items) | ast.Tuple(elts=items):
                member = In(name, tuple(self._constant(item) for item in items))
                return Not(member) if isinstance(op, ast.NotIn) else member
            case ast.Name(id=name), _, constant if type(op) in _OPERATORS:
                return Compare(name, _OPERATORS[type(op)], self._constant(constant))
            case constant, _, ast.Name(id=name) if type(op) in _OPERATORS:
                return Compare(name, _MIRRORED[_OPERATORS[type(op)]], self._constant(constant))
            case ast.Name(), ast.In() | ast.NotIn(), _:
                raise ValueError(f"after in comes a list such as [1, 2], not {self._piece(right)}")
            case ast.Constant(), _, ast.Constant():
                raise ValueError(f"neither {self._piece(left)} nor {self._piece(right)} is a field")
        raise self._refusal(left if not isinstance(left, ast.Name) else right)

    def _constant(self, node: ast.expr) -> Scalar:
        match node:
            case ast.Constant(value=str() | int() | float() | bool() as value):
                return value
            case ast.Name(id="true" | "false" as name):
                return name == "true"
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)) if not isinstance(
                value, bool
            ):
                return -value
            case ast.Name():
                raise ValueError(f"{self._piece(node)} is no value: put a text in quotes")
        raise self._refusal(node)

    def _refusal(self, node: ast.AST) -> ValueError:
        return ValueError(f"{self._piece(node)} is not part of the filter grammar")

    def _piece(self, node: ast.AST) -> str:
        piece = ast.get_source_segment(self._text, node) if isinstance(node, ast.expr) else None
        return repr(piece or type(node).__name__)
