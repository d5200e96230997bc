"""Filter → Milvus expression, with every constant typed and quoted here.

Milvus' own templates for constants need a newer server than the oldest one we support.
"""

from collections.abc import Iterable

from bartizan_connector.collection import Collection, FieldType, Scalar
from bartizan_connector.errors import WrongUse
from bartizan_connector.filters import And, Compare, Filter, In, Not, Or

NEVER = 'pk == ""'
ALWAYS = 'pk != ""'
"""Milvus compares fields with constants only, so a constant truth is told by a field that is never empty."""

_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r"})
"""All that must be escaped; more would fail: neither Milvus knows every escape that JSON has."""

WORDS = frozenset(
    {"like", "exists", "null", "isnull", "not_null", "is_null", "is_not_null", "text_match", "phrase_match", "nan",
     "array_contains", "array_contains_all", "array_contains_any", "array_length", "json_contains",
     "json_contains_all", "json_contains_any", "random_sample", "true", "false", "and", "or", "not", "in"}
)  # fmt: skip
"""Words of Milvus' language, in lower case: no field can have such a name in an expression."""


def render(filter: Filter, collection: Collection) -> str:
    """The expression that is true for exactly the rows that pass the filter, which has been checked."""
    types: dict[str, FieldType] = {"id": "string", **{spec.name: spec.type for spec in collection.fields}}
    match filter:
        case Compare(field, op, value):
            return f"{field} {op} {_constant(value, types[field])}"
        case In(_, ()):
            return NEVER
        case In(field, values):
            return f"{field} in {_constants(values, types[field])}"
        case And(parts):
            return _joined(" and ", [render(part, collection) for part in parts]) or ALWAYS
        case Or(parts):
            return _joined(" or ", [render(part, collection) for part in parts]) or NEVER
        case Not(part):
            return f"not ({render(part, collection)})"


def one_of(field: str, texts: Iterable[str]) -> str:
    """The expression for rows whose string field is one of the texts."""
    return f"{field} in {_constants(texts, 'string')}"


def check_names(collection: Collection) -> None:
    """Refuse names that Milvus' language would not take for a field."""
    names = [leg.name for leg in collection.legs] + [spec.name for spec in collection.fields]
    taken = sorted(name for name in names if name.lower() in WORDS)
    if taken:
        raise WrongUse(f"Milvus cannot have a field named {', '.join(taken)}: a word of its filter language; rename it")


def _joined(word: str, parts: list[str]) -> str:
    return word.join(f"({part})" for part in parts)


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
