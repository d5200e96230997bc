"""Write a tree of plain values as TOML: what `tomllib` reads back is equal. (The standard library only reads TOML.)"""

import json
from collections.abc import Mapping, Sequence
from typing import Any


def dump(tree: Mapping[str, Any]) -> str:
    """The tree as text; lists of tables become `[[…]]` on the top level and inline tables below. None is left out."""
    plain: list[str] = []
    tables: list[str] = []
    for key, value in tree.items():
        if isinstance(value, Mapping):
            tables.append(f"\n[{_key(key)}]\n{_lines(value)}")
        elif isinstance(value, Sequence) and value and all(isinstance(item, Mapping) for item in value):
            tables.extend(f"\n[[{_key(key)}]]\n{_lines(item)}" for item in value)
        elif value is not None:
            plain.append(f"{_key(key)} = {_value(value)}\n")
    return "".join(plain + tables)


def _lines(table: Mapping[str, Any]) -> str:
    return "".join(f"{_key(key)} = {_value(value)}\n" for key, value in table.items() if value is not None)


def _value(value: Any) -> str:
    match value:
        case str():
            # A JSON string is a TOML string, but for DEL, which TOML wants escaped.
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case Mapping():
            inner = ", ".join(f"{_key(key)} = {_value(item)}" for key, item in value.items() if item is not None)
            return f"{{ {inner} }}" if inner else "{}"
        case Sequence():
            return f"[{', '.join(_value(item) for item in value)}]"
    raise TypeError(f"TOML has no {type(value).__name__}")


def _key(key: str) -> str:
    bare = key.isascii() and key.replace("-", "").replace("_", "").isalnum()
    return key if bare else _value(key)
