"""Debezium's envelopes: a change of a table's row, with or without its schema, becomes the record of a document.

`op` c, r and u put the row after the change; d removes it, as does a null value. The row's columns are the record's
keys. The key's only column is the id; a key of several columns needs one that is called `_id` or `id`.
"""

import json
from typing import Any

from bartizan_connector.base.errors import Reject
from bartizan_connector.stream.kafka.messages import text_of

_PUT, _REMOVED = frozenset("cru"), "d"


def debezium(key: bytes | None, value: bytes | None) -> tuple[str | None, bytes | None]:
    """The id, and the row as it is now."""
    id = _id_in(key)
    if value is None:
        return id, None
    change = _payload(_json("value", value))
    if not isinstance(change, dict) or "op" not in change:
        raise Reject(
            (), "not a Debezium envelope: there is no 'op'; where the values are plain rows, set decoder = \"json\""
        )
    op = change["op"]
    if op == _REMOVED:
        if id is None:
            raise Reject((), "a Debezium delete (op 'd') without a key: nothing says what is to be removed")
        return id, None
    if op not in _PUT:
        raise Reject((), f"the Debezium op {op!r:.40} changes no document; expected one of c, r, u, d")
    row = change.get("after")
    if not isinstance(row, dict):
        raise Reject((), f"a Debezium change (op {op!r}) whose 'after' is no row")
    return id, json.dumps(row, ensure_ascii=False).encode()


def _id_in(key: bytes | None) -> str | None:
    """The key's only column, or the one that is called so; a key that is no JSON object is the id itself."""
    text = text_of(key)
    if text is None or not text.lstrip().startswith("{"):
        return text
    columns = _payload(_json("key", text))
    if not isinstance(columns, dict):
        return str(columns)
    for name in ("_id", "id"):
        if name in columns:
            return str(columns[name])
    if len(columns) == 1:
        return str(next(iter(columns.values())))
    raise Reject((), f"the key has the columns {', '.join(columns)}: one of them must be called _id or id")


def _json(what: str, text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Reject((), f"the Debezium {what} is not JSON: {error}") from error


def _payload(value: Any) -> Any:
    """What is inside, where the schema came along."""
    return value["payload"] if isinstance(value, dict) and value.keys() == {"schema", "payload"} else value
