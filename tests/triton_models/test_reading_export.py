"""However a sparse tower reads a text, and however few of its terms it keeps, so does its export."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from bartizan_connector.encode.onnx import OnnxEncoder
from bartizan_connector.space.vectors import SparseVector
from bartizan_encoders.design import Design
from bartizan_encoders.local import TorchEncoder
from bartizan_encoders.tower import Tower
from bartizan_triton.export import export_tower
from tests.encoders import tiny

TEXTS = ["the tower of two", "", "how many 42?", "a, the tower! " * 9]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _dense(rows: object, size: int) -> np.ndarray:
    assert isinstance(rows, tuple)
    made = np.zeros((len(rows), size))
    for row, vector in zip(made, rows, strict=True):
        assert isinstance(vector, SparseVector)
        row[vector.indices] = vector.weights
    return made


@pytest.mark.packaging
@pytest.mark.parametrize(
    "facts",
    [{"echo": True}, {"attention": "bidirectional"}, {"special_tokens": "none"}, {"top_terms": 12, "echo": True}],
    ids=["echo", "bidirectional", "bare", "top terms"],
)
def test_an_export_answers_like_its_tower(tmp_path: Path, facts: dict[str, object]) -> None:
    plain = tiny.sparse_tower("llama")
    design = Design.sparse(name="made", roles=plain.spec.roles, **facts)  # type: ignore[arg-type]
    tower = Tower.assemble(
        plain.backbone, plain.head, architecture=plain.architecture, tokenizer=plain.tokens.text, design=design
    )
    tower.save(tmp_path / "tower")
    assert export_tower(tmp_path / "tower", tmp_path / "export") == tower.spec
    encoder = OnnxEncoder.open(tmp_path / "export")
    found = encoder.encode(TEXTS, "document").values
    encoder.close()
    expected = TorchEncoder.open(tmp_path / "tower").encode(TEXTS, "document").values
    np.testing.assert_allclose(_dense(found, tower.spec.dim), _dense(expected, tower.spec.dim), atol=1e-4)
