"""A replay of dead letters: what it comes to, and what it would come to."""

import time
from collections.abc import Callable, Mapping
from itertools import islice

from bartizan_connector.base.errors import Reject
from bartizan_connector.encode.encoder import Encoder
from bartizan_connector.store.backend import Store
from bartizan_connector.store.collection import Head
from bartizan_connector.stream.again import SIZE
from bartizan_connector.stream.chunks import Cutter
from bartizan_connector.stream.fence import plan
from bartizan_connector.stream.letters import Chosen, Letterbox
from bartizan_connector.stream.records import Change, Cut, decode
from bartizan_connector.stream.report import Report
from bartizan_connector.stream.versions import latest
from bartizan_connector.stream.words import Words
from bartizan_connector.stream.work import fill


def replay(
    box: Letterbox,
    chosen: Chosen,
    store: Store,
    encoders: Mapping[str, Encoder],
    *,
    words: Words | None = None,
    cutter: Cutter | None = None,
    on_batch: Callable[[Report], None] | None = None,
) -> Report:
    """Give the chosen letters again, through the steps that every message goes through. `dead` were refused again."""
    source = box.again(chosen)
    try:
        return fill(store, source, encoders, words=words, cutter=cutter, on_batch=on_batch)
    finally:
        source.close()
        box.flush()


def foreseen(box: Letterbox, chosen: Chosen, store: Store, *, cut: Cut | None = None) -> Report:
    """What a replay would come to now, as far as it is decided without a tower; nothing is written."""
    letters, known, total = filter(chosen, box.letters()), dict[str, Head](), Report()
    while some := list(islice(letters, SIZE)):
        changes: list[Change] = []
        for letter in some:
            try:
                changes.append(decode(letter.message, store.collection, cut))
            except Reject:
                continue
        ids = list(dict.fromkeys(change.id for change in changes))
        heads = {**store.heads(ids), **known} if ids else {}
        todo = plan(changes, heads, now=latest(time.time()))
        known.update((head.id, head) for head in todo.heads)
        total += Report(
            read=len(some),
            written=len(todo.write),
            unchanged=len(todo.advance) + len(todo.known),
            stale=len(todo.stale),
            deleted=len(todo.delete),
            dead=len(some) - len(changes),
        )
    return total
