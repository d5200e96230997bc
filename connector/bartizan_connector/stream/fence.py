"""What a batch of changes means for what is stored: which to write, which to delete, which are old or no news.

The plan depends only on the changes and the heads, and is the same as if the changes came one by one in their order:
of several changes of one id the newest counts, of equal versions the first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bartizan_connector.store.collection import Head
from bartizan_connector.stream.records import Change, Put, Remove


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What one batch comes to; every change is in exactly one of the five groups."""

    write: tuple[Put, ...]
    """New content: encode and store."""
    delete: tuple[Remove, ...]
    advance: tuple[Put, ...]
    """Newer versions of the content that is stored: only the head moves."""
    known: tuple[Change, ...]
    """What is stored already, at this very version: a replay."""
    stale: tuple[Change, ...]
    """Older than what is stored, or than another change in the batch."""


def plan(changes: Sequence[Change], heads: Mapping[str, Head]) -> Plan:
    """Sort the changes of one batch by what has to be done."""
    newest = newest_by_id(changes)
    write: list[Put] = []
    delete: list[Remove] = []
    advance: list[Put] = []
    known: list[Change] = []
    stale: list[Change] = [change for change in changes if newest[change.id] is not change]
    for change in newest.values():
        head = heads.get(change.id)
        if head is not None and is_replay(change, head):
            known.append(change)
        elif head is not None and is_old(change, head):
            stale.append(change)
        elif isinstance(change, Remove):
            delete.append(change)
        elif head is not None and has_content(change, head):
            advance.append(change)
        else:
            write.append(change)
    return Plan(
        write=tuple(write), delete=tuple(delete), advance=tuple(advance), known=tuple(known), stale=tuple(stale)
    )


def newest_by_id(changes: Sequence[Change]) -> dict[str, Change]:
    """The newest change of each id; of equal versions the first, as one by one the second would be a replay."""
    newest: dict[str, Change] = {}
    for change in changes:
        if change.id not in newest or change.version > newest[change.id].version:
            newest[change.id] = change
    return newest


def is_old(change: Change, head: Head) -> bool:
    """Whether the fence stops it. An equal version passes only to repair an id whose write never ended."""
    return change.version < head.version or (change.version == head.version and not is_torn(head))


def is_replay(change: Change, head: Head) -> bool:
    """Whether this very change is what is stored."""
    if change.version != head.version or is_torn(head):
        return False
    return head.deleted if isinstance(change, Remove) else has_content(change, head)


def has_content(put: Put, head: Head) -> bool:
    """Whether the document is stored as it is."""
    return not head.deleted and head.hash == put.hash


def is_torn(head: Head) -> bool:
    """Whether a write of the id began and did not end: its rows may be the old ones, the new ones, or gone."""
    return not head.deleted and not head.hash


def opened(head: Head) -> Head:
    """The head while its rows are being changed: same version, content unknown."""
    return Head(id=head.id, version=head.version)
