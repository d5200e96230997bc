"""Embedded ≡ memory: the same random writes give the same answers, in every leg, with every filter."""

import random
from pathlib import Path

import pytest

from bartizan_connector.store.embedded import EmbeddedBackend
from bartizan_connector.store.memory import MemoryBackend
from tests.connector.store.embedded.drawing import COLLECTION, compare, write


@pytest.mark.parametrize("seed", range(6))
def test_random_writes_end_as_in_the_oracle(tmp_path: Path, seed: int) -> None:
    """A second back-end follows as another process would: it must see every write at its next call."""
    dice = random.Random(seed)
    backend, reader = EmbeddedBackend(tmp_path / "index.bartizan"), EmbeddedBackend(tmp_path / "index.bartizan")
    store, oracle = backend.open(COLLECTION), MemoryBackend().open(COLLECTION)
    other = reader.open(COLLECTION, create=False)
    for version in range(1, 101):
        when = f"seed {seed}, {write(dice, (store, oracle), version)}"
        compare(dice, dice.choice((store, other)), oracle, when)
    reader.close()
    backend.close()
    again = EmbeddedBackend(tmp_path / "index.bartizan")
    compare(dice, again.open(COLLECTION, create=False), oracle, f"seed {seed}, opened again")
    again.close()
