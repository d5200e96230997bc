"""What is wrong with one document, by its head, its rows and its words alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from bartizan_connector.doctor.verify.damage import Kind
from bartizan_connector.space.vectors import SparseVector, Vector
from bartizan_connector.store.audit import Standing
from bartizan_connector.store.collection import Collection, Document, Leg, Row
from bartizan_connector.stream.records import Cut, Put

_HASH_LETTERS = 64
"""Of the digests that ingest writes; another's hashes say nothing that could be compared."""


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


def put_of(standing: Standing) -> Put | None:
    """The document as a source would give it, cut as its head says; None where its rows do not tell its content."""
    rows, head = standing.rows, standing.head
    if head is None or not rows or not _is_whole(rows):
        return None
    cut = Cut.of_hash(head.hash)
    fields = Document(id=standing.id, rows=rows, head=head).fields
    if (len(rows) > 1 and cut is None) or not isinstance(fields.get("text"), str):
        return None
    return Put(
        id=standing.id,
        title=str(fields.get("title", "")),
        text=str(fields["text"]),
        fields=fields,
        version=head.version,
        cut=cut,
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
    elif Cut.of_hash(head.hash) and not _is_whole(rows):
        kinds["missing row"] = f"of its chunks there are only {', '.join(str(row.chunk) for row in rows)}"
    elif _is_ours(head.hash) and (put := put_of(standing)) and put.hash != head.hash:
        kinds["wrong head" if words == put.hash else "stale row"] = f"version {head.version}"


def _is_ours(hash: str) -> bool:
    return len(hash) == _HASH_LETTERS or Cut.of_hash(hash) is not None


def _is_whole(rows: Sequence[Row]) -> bool:
    """Whether no chunk lacks before the last that is there."""
    return [row.chunk for row in rows] == list(range(len(rows)))


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
