"""What is wrong with one document, by its head, its rows and its words alone."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from bartizan_connector.doctor.verify.damage import Kind
from bartizan_connector.space.vectors import SparseVector, Vector
from bartizan_connector.store.audit import Standing
from bartizan_connector.store.collection import Collection, Leg, Row
from bartizan_connector.stream.records import Put

_HASH_LETTERS = 64
"""Of the hashes that ingest writes; another's say nothing that could be compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The damages of one id."""

    standing: Standing
    kinds: Mapping[Kind, str] = field(default_factory=dict)
    """Kind → details."""


def examined(standing: Standing, collection: Collection, words: str | None, *, worded: bool) -> Found:
    """`words`: the hash that the word index holds of the id; `worded`: whether there is a word index."""
    kinds: dict[Kind, str] = {}
    head, rows = standing.head, standing.rows
    alive = head is not None and not head.deleted
    if head is None:
        if rows:
            kinds["half-written"] = "its rows were written, and its head was not"
    elif alive and not head.hash:
        kinds["half-written"] = "its head says that its rows were about to change"
    elif alive:
        _of_content(standing, words, kinds)
    if alive:
        for row in rows:
            if told := _broken(row, collection):
                kinds["broken vector"] = told
    expected = head.hash if head is not None and alive and head.hash else None
    if not standing.worded or (worded and words != expected and "half-written" not in kinds):
        kinds["words behind"] = f"they hold {_shown(words)} of it" if standing.worded else "they are not its rows'"
    return Found(standing=standing, kinds=kinds)


def put_of(row: Row) -> Put | None:
    """The document as a source would give it; None where its content does not stand in one row."""
    if row.chunk or not isinstance(row.fields.get("text"), str):
        return None
    return Put(
        id=row.id,
        title=str(row.fields.get("title", "")),
        text=str(row.fields["text"]),
        fields=row.fields,
        version=row.version,
    )


def _of_content(standing: Standing, words: str | None, kinds: dict[Kind, str]) -> None:
    head, rows = standing.head, standing.rows
    assert head is not None
    if not rows:
        kinds["missing row"] = "no row of it is there"
    elif standing.reach is not None and rows[-1].chunk + 1 < standing.reach:
        kinds["missing row"] = (
            f"its last chunk is number {standing.reach - 1}, and the last row that is there is another"
        )
    elif len(rows) == 1 and len(head.hash) == _HASH_LETTERS and (put := put_of(rows[0])) and put.hash != head.hash:
        kinds["wrong head" if words == put.hash else "stale row"] = f"version {head.version}"


def _broken(row: Row, collection: Collection) -> str:
    for leg in collection.legs:
        vector = row.vectors.get(leg.name)
        if vector is None:
            return f"the {leg.name} leg of chunk {row.chunk} has none that can be read"
        if told := _fault(leg, vector):
            return f"the {leg.name} leg of chunk {row.chunk}: {told}"
    return ""


def _fault(leg: Leg, vector: Vector) -> str:
    value = vector.value
    if isinstance(value, SparseVector):
        too_far = value.indices.size and int(value.indices[-1]) >= leg.dim
        return f"a term beyond its vocabulary of {leg.dim}" if too_far else ""
    if value.shape != (leg.dim,):
        return f"its length is {value.size}, not {leg.dim}"
    return "" if np.isfinite(value).all() else "NaN or infinity"


def _shown(words: str | None) -> str:
    return "nothing" if words is None else f"the content {words[:12]}"
