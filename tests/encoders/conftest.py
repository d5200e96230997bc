"""Towers that several tests share; one thread for tiny models, since a second one only waits for the first."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.encoders import tiny


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT tower with a head; never written to."""
    return tiny.saved(tmp_path_factory.mktemp("towers") / "bert", dim=8)
