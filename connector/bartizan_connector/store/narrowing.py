"""A refused request is narrowed down to the items that are at fault, by halves; all others get written."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeVar

from bartizan_connector.base.errors import Reject, Stop

T = TypeVar("T")


def refused_of(items: Sequence[T], send: Callable[[Sequence[T]], None], id_of: Callable[[T], str]) -> dict[str, str]:
    """Send the items; of a request that is rejected each half again. The answer is id → reason of those that are
    rejected even alone. Each item is sent whole, so a store that takes a request whole or not at all keeps what a
    rejected one had."""
    if not items:
        return {}
    try:
        send(items)
    except Reject as error:
        if len(items) == 1:
            return {id_of(items[0]): error.reason}
        middle = len(items) // 2
        return refused_of(items[:middle], send, id_of) | refused_of(items[middle:], send, id_of)
    return {}


def raise_refused(refused: Mapping[str, str], ids: Collection[str], place: str) -> None:
    """Reject those that were refused, of all the ids of a call; where that is every one, the documents are not to
    blame: a Stop."""
    if not refused:
        return
    id, reason = next(iter(refused.items()))
    if set(refused) >= set(ids):
        raise Stop(
            f"{place} refuses every document that was to be written, so it is not the documents: {reason} "
            f"(document {id[:80]!r}). See what changed there, or index again under a new collection name"
        )
    others = f" (and {len(refused) - 1} more ids)" if len(refused) > 1 else ""
    raise Reject(list(refused), f"document {id[:80]!r}{others}: {reason}")
