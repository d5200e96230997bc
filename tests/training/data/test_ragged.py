"""Rows of different lengths as flat arrays, against plain lists."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bartizan_training.data.ragged import Ragged

rows = st.lists(st.lists(st.integers(0, 99), max_size=5), min_size=1, max_size=8)


@given(rows, st.data())
def test_picked_rows_are_those_of_the_lists(lists: list[list[int]], data: st.DataObject) -> None:
    wanted = data.draw(st.lists(st.integers(0, len(lists) - 1), max_size=10))
    picked = Ragged.of(lists).pick(np.array(wanted, dtype=np.int64))
    found = [
        picked.flat[start : start + length].tolist()
        for start, length in zip(picked.starts, picked.lengths, strict=True)
    ]
    assert found == [lists[number] for number in wanted]
    assert picked.owners.tolist() == [row for row, number in enumerate(wanted) for _ in lists[number]]
