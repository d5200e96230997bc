"""Batches by tokens: texts of like length together, so that little work is spent on padding."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from bartizan_connector.space.tokens import PADDING_ID, Tokenized

Ids = npt.NDArray[np.int64]


def by_length(texts: Sequence[Tokenized], budget: int, *, most_texts: int | None = None) -> Iterator[list[int]]:
    """Positions of the texts in batches, longest first (so that memory peaks at once); padding included, a batch holds
    at most `budget` tokens, or one text, and never more than `most_texts` texts."""
    order = sorted(range(len(texts)), key=lambda position: -len(texts[position].ids))
    start = 0
    while start < len(order):
        longest = max(1, len(texts[order[start]].ids))
        size = max(1, budget // longest)
        if most_texts is not None:
            size = min(size, most_texts)
        yield order[start : start + size]
        start += size


def padded(texts: Sequence[Tokenized], *, multiple: int = 1, most: int | None = None) -> tuple[Ids, Ids]:
    """`input_ids` and `attention_mask`, padded on the right to a multiple of `multiple` tokens, but not beyond `most`
    (a model has no position for more)."""
    longest = max(len(text.ids) for text in texts)
    width = -(-longest // multiple) * multiple
    if most is not None:
        width = max(longest, min(width, most))
    ids = np.full((len(texts), width), PADDING_ID, dtype=np.int64)
    mask = np.zeros((len(texts), width), dtype=np.int64)
    for row, text in enumerate(texts):
        ids[row, : len(text.ids)] = text.ids
        mask[row, : len(text.ids)] = 1
    return ids, mask
