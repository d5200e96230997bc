"""Filter → Milvus expression, with every constant typed and quoted here.

Milvus' own templates for constants need a newer server than the oldest one we support.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.store.collection import Collection, FieldType, Scalar
from bartizan_connector.store.filters import KEYS, And, Compare, Filter, In, Not, Or

NEVER = 'pk == ""'
ALWAYS = 'pk != ""'
"""Milvus compares fields with constants only, so a constant truth is told by a field that is never empty."""

_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r"})
"""All that must be escaped; more would fail: neither Milvus knows every escape that JSON has."""

WORDS = frozenset(
    {"like", "exists", "null", "isnull", "not_null", "is_null", "is_not_null", "text_match", "phrase_match", "nan",
     "array_contains", "array_contains_all", "array_contains_any", "array_length", "json_contains",
     "json_contains_all", "json_contains_any", "random_sample", "true", "false", "and", "or", "not", "in", "is",
     "iso", "interval"}
)  # fmt: skip
"""Words of Milvus' language, in any case: no field can have such a name in an expression."""
SYSTEM_FIELDS = frozenset({"RowID", "Timestamp", "_partition", "_seq"})
"""Names that a server or Milvus Lite keeps for itself, spelled exactly so."""


def render(filter: Filter, collection: Collection) -> str:
    """The expression that is true for exactly the rows that pass the filter, which has been checked."""
    types: dict[str, FieldType] = {**KEYS, **{spec.name: spec.type for spec in collection.fields}}
    return _rendered(filter, types).text


@dataclass(frozen=True, order=True, slots=True)
class _Part:
    """A piece of an expression, and how deep Milvus will nest it."""

    depth: int
    text: str


def _rendered(filter: Filter, types: Mapping[str, FieldType]) -> _Part:
    match filter:
        case Compare(field, op, value):
            return _Part(1, f"{field} {op} {_constant(value, types[field])}")
        case In(_, ()):
            return _Part(1, NEVER)
        case In(field, values):
            return _Part(1, f"{field} in {_constants(_both_zeros(values, types[field]), types[field])}")
        case And(parts):
            return _joined("and", [_rendered(part, types) for part in parts] or [_Part(1, ALWAYS)])
        case Or(parts):
            return _joined("or", [_rendered(part, types) for part in parts] or [_Part(1, NEVER)])
        case Not(part):
            inner = _rendered(part, types)
            return _Part(inner.depth + 1, f"not ({inner.text})")


def _joined(word: str, parts: list[_Part]) -> _Part:
    """Two by two, the flattest first: a server nests a plain chain once per part, and fails at 49 levels."""
    heapify(parts)
    while len(parts) > 1:
        one, other = heappop(parts), heappop(parts)
        heappush(parts, _Part(other.depth + 1, f"({one.text}) {word} ({other.text})"))
    return parts[0]


def _both_zeros(values: tuple[Scalar, ...], kind: FieldType) -> tuple[Scalar, ...]:
    """Milvus Lite tells 0.0 and -0.0 apart in a list, and nowhere else."""
    return (*values, 0.0, -0.0) if kind == "float" and 0.0 in values else values


def one_of(field: str, texts: Iterable[str]) -> str:
    """The expression for rows whose string field is one of the texts."""
    return f"{field} in {_constants(texts, 'string')}"


def quoted(text: str) -> str:
    """The text as a constant."""
    return _constant(text, "string")


def check_names(collection: Collection) -> None:
    """Refuse names that Milvus' language would not take for a field."""
    names = [leg.name for leg in collection.legs] + [spec.name for spec in collection.fields]
    taken = sorted(name for name in names if name.lower() in WORDS or name in SYSTEM_FIELDS)
    if taken:
        raise WrongUse(f"Milvus keeps the name {', '.join(taken)} for itself; give the field another one")


def _constants(values: Iterable[Scalar], kind: FieldType) -> str:
    return f"[{', '.join(_constant(value, kind) for value in values)}]"


def _constant(value: Scalar, kind: FieldType) -> str:
    match kind:
        case "string":
            return f'"{str(value).translate(_ESCAPES)}"'
        case "bool":
            return "true" if value else "false"
        case "int":
            return str(int(value))
        case "float":
            return repr(float(value))
