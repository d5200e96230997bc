"""How far one collection has followed another, by what both know of each id; while both are being written.

A collection that follows may be the newer one, where it reads the same topic faster. So it is not asked to be equal to
the other at some moment, which no moment would show under live writes, but to have come as far as the other was seen.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.store.audit import Audited
from bartizan_connector.store.backend import Store
from bartizan_connector.store.collection import Head
from bartizan_connector.stream.fence import is_torn
from bartizan_connector.stream.records import digest_in

Relation = Literal["agrees", "behind", "ahead", "unlike"]
_MOST_NAMED = 10_000
"""Differing ids that are looked at again; more than these is no matter of moments."""
_AGAIN_SECONDS = 0.2
_EXAMPLES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What the one that follows lacks of the other, as far as the other was seen."""

    documents: int
    """In the one that is followed."""
    copied: int
    """In the one that follows."""
    deleted: int
    """Deletions that the one that is followed remembers."""
    missing: int = 0
    """Documents that are not there."""
    extra: int = 0
    """Documents that are deleted in the other."""
    own: int = 0
    """Documents of which the other knows nothing."""
    behind: int = 0
    """Ids of which something older is there."""
    unlike: int = 0
    """Ids of which something else is there at the same version (other content, or only one of the two is a deletion),
    and counted nowhere else: nobody knows which is the newer one, so no pass brings it over."""
    examples: tuple[str, ...] = ()

    @property
    def lag(self) -> int:
        """Ids that have to be brought over, and can be."""
        return self.missing + self.extra + self.behind

    @property
    def told_unlike(self) -> str:
        """What is unlike, for people, with the way out."""
        return (
            f"{self.unlike:,} ids of which something else is there at the same version, which no pass can bring over: "
            "give these documents again with a higher _version, or drop the next collection and run it anew from "
            "stored text, or let them be (--force heads)"
        )


def relation(head: Head, theirs: Head | None) -> Relation:
    """What the one that follows knows of an id, beside what the one that is followed does. Within an origin the offset
    decides, else the version; at one version the content, wherever it came from. What is being written right now is
    taken for followed."""
    if is_torn(head):
        return "agrees"
    if theirs is None:
        return "behind"
    if head.origin and head.origin == theirs.origin:
        order = (head.offset > theirs.offset) - (head.offset < theirs.offset)
    else:
        order = (head.version > theirs.version) - (head.version < theirs.version)
    if order:
        return "behind" if order > 0 else "ahead"
    if is_torn(theirs):
        return "behind"
    same = (head.deleted, digest_in(head.hash)) == (theirs.deleted, digest_in(theirs.hash))
    return "agrees" if same else "unlike"


def heads_of(store: Store) -> Iterator[list[Head]]:
    """Every head, a page at a time."""
    if not isinstance(store, Audited):
        raise WrongUse(
            f"the back-end of collection '{store.collection.name}' cannot tell all that it knows (`audit`), so nobody "
            "can follow it; ingest from the source into a new collection instead"
        )
    return store.audit().heads()


def compare(
    source: Store, target: Store, *, settle: float = 0.0, own: bool = False, sleep: Callable[[float], None] = time.sleep
) -> Difference:
    """What `target` lacks of `source`. What differs is looked at again for up to `settle` seconds; with `own` also what
    only `target` has, which the other may get to know yet."""
    documents = deleted = copied = uncounted = 0
    open: dict[str, Head] = {}
    for page in heads_of(source):
        theirs = target.heads([head.id for head in page])
        documents += sum(not head.deleted for head in page)
        deleted += sum(head.deleted for head in page)
        for head in page:
            if relation(head, theirs.get(head.id)) in ("behind", "unlike"):
                uncounted += len(open) >= _MOST_NAMED
                if len(open) < _MOST_NAMED:
                    open[head.id] = head
    strange: set[str] = set()
    for page in heads_of(target):
        live = [head.id for head in page if not head.deleted]
        copied += len(live)
        strange.update(set(live) - set(source.heads(live)) if len(strange) < _MOST_NAMED else ())
    deadline = time.monotonic() + settle
    there = _again(source, target, open, strange)
    while (open or (own and strange)) and not uncounted and time.monotonic() < deadline:
        sleep(_AGAIN_SECONDS)
        there = _again(source, target, open, strange)
    unlike = {id for id, head in open.items() if relation(head, there.get(id)) == "unlike"}
    left = [head for id, head in open.items() if id not in unlike]
    lacking = [head for head in left if not head.deleted and (head.id not in there or there[head.id].deleted)]
    returned = [head for head in left if head.deleted and head.id in there and not there[head.id].deleted]
    return Difference(
        documents=documents,
        copied=copied,
        deleted=deleted,
        missing=len(lacking) + uncounted,
        extra=len(returned),
        own=len(strange),
        behind=len(left) - len(lacking) - len(returned),
        unlike=len(unlike),
        examples=tuple([*open, *sorted(strange)][:_EXAMPLES]),
    )


def _again(source: Store, target: Store, open: dict[str, Head], strange: set[str]) -> Mapping[str, Head]:
    """Take out what has come right meanwhile, and say what is known there of the rest."""
    there = dict(target.heads([*open, *strange]))
    for id in [id for id, head in open.items() if relation(head, there.get(id)) in ("agrees", "ahead")]:
        del open[id]
    known = source.heads(list(strange)) if strange else {}
    strange -= {id for id in strange if id in known or id not in there or there[id].deleted}
    return there
