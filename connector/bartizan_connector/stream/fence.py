"""What a batch of changes means for what is stored: which to write, which to delete, which are old or no news.

What is doubtful was written before, and may be forgotten, or its head may stand while its rows are forgotten. So it is
written again at the place that it has, and is never taken for content that is stored.

The plan depends only on the changes, the heads and the time, and is the same as if the changes came one by one in
their order. Whether a change is newer than the head of its id:

1. A version of the record's own (no origin) decides alone. Equal is not newer.
2. Of one origin, the offset decides, whatever the clocks said; an equal offset is the same message again.
3. Of two states of one sequence (origins that differ after the `#` only), the one that arrives is newer: a file is read
   as it is now, and what it was before cannot come again. So an edited file counts even when its time went back.
4. Else the versions decide, that is: the clocks. Equal is not newer.
5. But a head whose version is still to come was stamped by a clock that was ahead; it stops nothing that arrives from
   elsewhere.
6. A change that was set aside and comes after its turn (a dead letter) is newer by 1, 2 and 4 only: that it arrives
   now says nothing.

What comes again just as it is stored, but is cut otherwise by now, is written anew at the place that it has. A change
that is newer by 2, 3 or 5 gets at least the version after the head's, so the versions of an id always grow.

Guaranteed: what was stored is never replaced by a replay of its own sequence, nor by what is older by its stamps; and a
clock that jumps back, or was ahead for a while, loses no change of one sequence, and none that arrives after the jump.
What cannot be told apart, as nothing remembers where both stood: while an id's head is still to come (rule 5), a replay
from another sequence looks like news and wins; so does a replay whose stamp lies in the future and is cut to the moment
of each reading (a source that can, cuts it to a moment that stays). And between two sequences, a change that was
stamped by a clock which is behind is a late one.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from bartizan_connector.store.collection import Head
from bartizan_connector.stream.records import Change, Put, Remove, digest_in


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What one batch comes to; every change is in exactly one of the five groups, those that count with the head that
    their id gets."""

    write: tuple[tuple[Put, Head], ...] = ()
    """New content: encode and store."""
    delete: tuple[tuple[Remove, Head], ...] = ()
    advance: tuple[tuple[Put, Head], ...] = ()
    """Newer versions of the content that is stored: only the head moves."""
    known: tuple[Change, ...] = ()
    """What is stored already, at this very place: a replay."""
    stale: tuple[Change, ...] = ()
    """Older than what is stored, or than another change in the batch."""

    @property
    def heads(self) -> tuple[Head, ...]:
        """The heads that change, as they will be."""
        return tuple(head for _, head in (*self.write, *self.delete, *self.advance))

    @property
    def counted(self) -> dict[str, Change]:
        """The one change of each id that counts; none for an id of which all are stale."""
        moved: list[tuple[Change, Head]] = [*self.write, *self.delete, *self.advance]
        return {change.id: change for change in (*(change for change, _ in moved), *self.known)}


def plan(
    changes: Sequence[Change], heads: Mapping[str, Head], *, now: int, doubtful: Collection[str] = frozenset()
) -> Plan:
    """Sort the changes of one batch by what has to be done; `now`: the highest version of the present; `doubtful`: ids
    of which changes may be forgotten that were written before."""
    current: dict[str, Head] = dict(heads)
    counted: dict[str, Change] = {}
    stale: list[Change] = []
    for change in changes:
        head, before = current.get(change.id), counted.get(change.id)
        version = version_after(change, head, now)
        if version is None and (before is not None or head is None or not is_replay(change, head)):
            stale.append(change)
            continue
        if before is not None:
            stale.append(before)
        counted[change.id] = change
        if version is not None:
            current[change.id] = head_of(change, version)
    return _sorted(counted, {**heads, **{id: opened(heads[id]) for id in doubtful if id in heads}}, current, stale)


def version_after(change: Change, head: Head | None, now: int) -> int | None:
    """The version that the change gets, or None where it is not newer than the head. A change at the very place of the
    head passes only to repair an id whose write never ended, and to cut its text otherwise."""
    if head is None:
        return change.version
    again = is_torn(head) or _is_cut_otherwise(change, head)
    following = max(change.version, head.version + 1)
    if change.origin and change.origin == head.origin:
        if change.offset == head.offset:
            return head.version if again else None
        return following if change.offset > head.offset else None
    if change.origin and not change.late and sequence(change.origin) == sequence(head.origin):
        return following
    if change.version > head.version or (change.version == head.version and again):
        return change.version
    return following if change.origin and head.origin and head.version > now and not change.late else None


def is_replay(change: Change, head: Head) -> bool:
    """Whether this very change is what is stored."""
    same_place = change.origin != "" and (change.origin, change.offset) == (head.origin, head.offset)
    if is_torn(head) or not (same_place or change.version == head.version):
        return False
    return head.deleted if isinstance(change, Remove) else has_content(change, head)


def has_content(put: Put, head: Head) -> bool:
    """Whether the document is stored as it is."""
    return not head.deleted and head.hash == put.hash


def _is_cut_otherwise(change: Change, head: Head) -> bool:
    """Whether the document is stored as it is but for how its text is cut into chunks."""
    return (
        isinstance(change, Put)
        and not (head.deleted or has_content(change, head))
        and (digest_in(change.hash) == digest_in(head.hash))
    )


def is_torn(head: Head) -> bool:
    """Whether a write of the id began and did not end: its rows may be the old ones, the new ones, or gone."""
    return not head.deleted and not head.hash


def opened(head: Head) -> Head:
    """The head while its rows are being changed: the same place, content unknown."""
    return replace(head, hash="", deleted=False)


def sequence(origin: str) -> str:
    """The origin without the state that its sequence was in."""
    return origin.partition("#")[0]


def head_of(change: Change, version: int) -> Head:
    """The head of the change's id once it is stored at that version."""
    head = Head(id=change.id, version=version, origin=change.origin, offset=change.offset)
    return replace(head, deleted=True) if isinstance(change, Remove) else replace(head, hash=change.hash)


def _sorted(
    counted: Mapping[str, Change], before: Mapping[str, Head], after: Mapping[str, Head], stale: Sequence[Change]
) -> Plan:
    write: list[tuple[Put, Head]] = []
    delete: list[tuple[Remove, Head]] = []
    advance: list[tuple[Put, Head]] = []
    known: list[Change] = []
    for id, change in counted.items():
        stored, head = before.get(id), after[id]
        if head is stored:
            known.append(change)
        elif isinstance(change, Remove):
            delete.append((change, head))
        elif stored is not None and has_content(change, stored):
            advance.append((change, head))
        else:
            write.append((change, head))
    return Plan(
        write=tuple(write), delete=tuple(delete), advance=tuple(advance), known=tuple(known), stale=tuple(stale)
    )
