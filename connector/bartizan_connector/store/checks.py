"""What every back-end checks before it touches its store: the stored contract, rows, heads and queries.

One set of rules for all of them, so that what one back-end takes every other takes too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from bartizan_connector.base.errors import Reject, SpaceMismatch, Stop, WrongUse
from bartizan_connector.space.spec import TowerSpec, require_same_space
from bartizan_connector.space.vectors import SparseVector, Vector, Vectors
from bartizan_connector.store import filters
from bartizan_connector.store.collection import (
    MAX_ID_BYTES,
    MAX_STRING_BYTES,
    Collection,
    Document,
    Head,
    Leg,
    Row,
    Scalar,
    is_of_type,
)
from bartizan_connector.store.filters import Filter

MAX_RESULTS = 16_384
"""The most rows that Milvus returns for one query."""
MAX_CHUNKS = 10_000
MAX_HASH_BYTES = 256
MAX_ORIGIN_BYTES = 256

_OTHER_TOWER = (
    "Use the tower of that space, or index the documents again under a new collection name. Where its towers were "
    "changed by bartizan reembed: use the new configuration, or go back by bartizan reembed rollback."
)


def require_leg(collection: Collection, name: str, spec: TowerSpec, what: str, *, way_out: str) -> Leg:
    """The leg of that name, once it is found to hold this tower's vectors."""
    leg = checked_leg(collection, name)
    told = f"tower '{spec.name}' {what} the {name} leg of collection '{collection.name}'"
    if leg.kind != spec.kind:
        raise SpaceMismatch(
            f"{told}, which is {leg.kind}, as the tower is {spec.kind}",
            expected=leg.space_id,
            came=spec.space_id,
            way_out=way_out,
        )
    require_same_space(told, expected=leg.space_id, came=spec.space_id, way_out=way_out)
    return leg


def check_stored(stored: Collection, wanted: Collection) -> None:
    """Refuse a stored collection that was made under another contract."""
    theirs = {leg.name: leg for leg in stored.legs}
    for leg in wanted.legs:
        if leg.name in theirs:
            require_same_space(
                f"collection '{stored.name}' holds vectors of another space in its {leg.name} leg",
                expected=theirs[leg.name].space_id,
                came=leg.space_id,
                way_out=_OTHER_TOWER,
            )
    for what, has, wants in (
        ("legs", _legs(stored), _legs(wanted)),
        ("fields", _fields(stored), _fields(wanted)),
    ):
        if has != wants:
            raise WrongUse(
                f"collection '{stored.name}' was made with the {what} {_shown(has)}, but the configuration asks for "
                f"{_shown(wants)}; restore the old ones, or index the documents again under a new collection name"
            )


def checked_rows(collection: Collection, rows: Sequence[Row]) -> list[Document]:
    """The rows by document, each (id, chunk) once, the last wins; every field filled in and of its own type.

    Raises before anything is written: SpaceMismatch for a vector of another space, Reject for every id that breaks a
    rule."""
    chunks: dict[str, dict[int, Row]] = {}
    heads: dict[str, Head] = {}
    refused: dict[str, str] = {}
    for row in rows:
        reason = _fault(collection, row)
        if reason:
            refused.setdefault(row.id, reason)
            continue
        chunks.setdefault(row.id, {})[row.chunk] = replace(row, fields=_filled(collection, row.fields))
        heads[row.id] = row.head
    _raise(refused)
    return [
        Document(id=id, rows=tuple(chunks[id][chunk] for chunk in sorted(chunks[id])), head=head)
        for id, head in heads.items()
    ]


def replaced(collection: Collection, now: Collection | None, place: str) -> Stop:
    """The error for a collection that was dropped or replaced since it was opened; `now`: what has its name."""
    if now is None:
        return Stop(
            f"collection '{collection.name}' at {place} was dropped since it was opened; nothing was written. Ingest "
            "again to make it anew"
        )
    try:
        check_stored(now, collection)
    except Stop as error:  # SpaceMismatch is one
        return error
    return Stop(
        f"collection '{collection.name}' at {place} was replaced by another since it was opened; nothing was written. "
        "Open it again"
    )


def checked_heads(heads: Sequence[Head]) -> list[Head]:
    """The heads, each id once, the last wins."""
    _raise({head.id: reason for head in heads if (reason := _head_fault(head))})
    return list({head.id: head for head in heads}.values())


def checked_query(collection: Collection, name: str, vectors: Vectors, k: int, filter: Filter | None) -> Leg:
    """The leg to search, once the query vectors, k and the filter are found to suit it."""
    leg = checked_leg(collection, name)
    require_same_space(
        f"a query cannot search the {name} leg of collection '{collection.name}'",
        expected=leg.space_id,
        came=vectors.space_id,
        way_out="Encode the query with a tower of that space.",
    )
    if not 1 <= k <= MAX_RESULTS:
        raise WrongUse(f"k = {k} is out of range; ask for 1 to {MAX_RESULTS} rows")
    for vector in vectors:
        reason = _vector_fault(leg, vector)
        if reason:
            raise WrongUse(f"a query cannot search collection '{collection.name}': {reason}")
    if filter is not None:
        filters.check(filter, collection)
    return leg


def checked_leg(collection: Collection, name: str) -> Leg:
    """The leg of that name."""
    if name not in {leg.name for leg in collection.legs}:
        legs = ", ".join(leg.name for leg in collection.legs)
        raise WrongUse(f"collection '{collection.name}' has no leg '{name}'; it has {legs}")
    return collection.leg(name)


def _fault(collection: Collection, row: Row) -> str | None:
    """Why the row can never be written, or None."""
    reason = _head_fault(row.head)
    if reason:
        return reason
    if not 0 <= row.chunk < MAX_CHUNKS:
        return f"chunk number {row.chunk} is not between 0 and {MAX_CHUNKS - 1}"
    names = {leg.name for leg in collection.legs}
    if set(row.vectors) != names:
        return f"expected vectors for the legs {_shown(names)}, got {_shown(row.vectors)}"
    for leg in collection.legs:
        require_same_space(
            f"document {row.id[:80]!r} cannot be written to collection '{collection.name}', leg {leg.name}",
            expected=leg.space_id,
            came=row.vectors[leg.name].space_id,
            way_out=_OTHER_TOWER,
        )
        reason = _vector_fault(leg, row.vectors[leg.name])
        if reason:
            return reason
    return _field_fault(collection, row.fields)


def _head_fault(head: Head) -> str | None:
    if not head.id:
        return "the id is empty"
    if not is_of_type(head.id, "string") or len(head.id.encode()) > MAX_ID_BYTES:
        return f"the id is not a UTF-8 text of at most {MAX_ID_BYTES} bytes"
    if not 0 <= head.version < 2**63:
        return f"version {head.version} is not between 0 and 2**63 - 1"
    if not head.hash.isascii() or len(head.hash) > MAX_HASH_BYTES:
        return f"the hash is not an ASCII text of at most {MAX_HASH_BYTES} bytes"
    if not is_of_type(head.origin, "string") or len(head.origin.encode()) > MAX_ORIGIN_BYTES:
        return f"the origin is not a UTF-8 text of at most {MAX_ORIGIN_BYTES} bytes"
    if not 0 <= head.offset < 2**63:
        return f"offset {head.offset} is not between 0 and 2**63 - 1"
    return None


def _vector_fault(leg: Leg, vector: Vector) -> str | None:
    value = vector.value
    if leg.kind == "sparse":
        if not isinstance(value, SparseVector):
            return f"leg {leg.name} takes sparse vectors, a dense one came"
        if value.indices.size and value.indices[-1] >= leg.dim:
            return f"leg {leg.name} has a vocabulary of {leg.dim}, but a vector has index {value.indices[-1]}"
        return None
    if isinstance(value, SparseVector):
        return f"leg {leg.name} takes dense vectors, a sparse one came"
    if value.shape != (leg.dim,) or value.dtype != np.float32:
        return f"leg {leg.name} takes float32 vectors of length {leg.dim}, got {value.dtype} of shape {value.shape}"
    if not np.isfinite(value).all():
        return f"the vector for leg {leg.name} holds NaN or infinity"
    return None


def _field_fault(collection: Collection, fields: Mapping[str, Scalar]) -> str | None:
    known = {spec.name: spec for spec in collection.fields}
    unknown = sorted(set(fields) - set(known))
    if unknown:
        return f"unknown fields {', '.join(unknown)}; the collection has {_shown(known)}"
    for spec in collection.fields:
        value = fields.get(spec.name, spec.default)
        if value is None:
            return f"field '{spec.name}' is missing and has no default"
        if not is_of_type(value, spec.type):
            return f"field '{spec.name}' is a {spec.type}, got {str(value)[:80]!r} ({type(value).__name__})"
        if isinstance(value, str) and len(value.encode()) > MAX_STRING_BYTES:
            return f"field '{spec.name}' has {len(value.encode())} bytes; at most {MAX_STRING_BYTES} can be stored"
    return None


def _filled(collection: Collection, fields: Mapping[str, Scalar]) -> dict[str, Scalar]:
    filled: dict[str, Scalar] = {}
    for spec in collection.fields:
        value = fields.get(spec.name, spec.default)
        assert value is not None
        filled[spec.name] = float(value) if spec.type == "float" else value
    return filled


def _raise(refused: Mapping[str, str]) -> None:
    if not refused:
        return
    id, reason = next(iter(refused.items()))
    others = f" (and {len(refused) - 1} more ids)" if len(refused) > 1 else ""
    raise Reject(list(refused), f"document {id[:80]!r}{others}: {reason}")


def _legs(collection: Collection) -> set[str]:
    return {f"{leg.name} ({leg.kind}, {leg.dim})" for leg in collection.legs}


def _fields(collection: Collection) -> set[str]:
    return {f"{spec.name} ({spec.type})" for spec in collection.fields}


def _shown(names: Mapping[str, object] | set[str]) -> str:
    return ", ".join(sorted(names)) or "none"
