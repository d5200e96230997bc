"""Batches by tokens: nothing lost, nothing over the budget, nothing padded further than needed."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bartizan_connector.encode.batches import by_length, padded
from bartizan_connector.space.tokens import Tokenized

TEXTS = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=40).map(lambda ids: Tokenized(ids, len(ids))))


@given(TEXTS, st.integers(1, 100))
def test_every_text_is_in_one_batch_and_no_batch_is_over_the_budget(texts: list[Tokenized], budget: int) -> None:
    batches = list(by_length(texts, budget))
    assert sorted(position for batch in batches for position in batch) == list(range(len(texts)))
    for batch in batches:
        longest = max(len(texts[position].ids) for position in batch)
        assert len(batch) == 1 or longest * len(batch) <= budget
    lengths = [len(texts[position].ids) for batch in batches for position in batch]
    assert lengths == sorted(lengths, reverse=True)


@given(TEXTS.filter(bool), st.sampled_from([1, 8, 16]), st.none() | st.integers(1, 60))
def test_padding_is_on_the_right_to_a_bucket_and_never_beyond_the_limit(
    texts: list[Tokenized], multiple: int, most: int | None
) -> None:
    ids, mask = padded(texts, multiple=multiple, most=most)
    longest = max(len(text.ids) for text in texts)
    assert ids.dtype == mask.dtype == np.int64
    assert ids.shape == mask.shape
    assert longest <= ids.shape[1] < longest + multiple
    if most is not None:
        assert ids.shape[1] <= max(longest, most)
    for row, text in enumerate(texts):
        assert ids[row, : len(text.ids)].tolist() == text.ids
        assert mask[row].tolist() == [1] * len(text.ids) + [0] * (ids.shape[1] - len(text.ids))
        assert not ids[row, len(text.ids) :].any()
