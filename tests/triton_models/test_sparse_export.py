"""A sparse tower is exported, judged by its own measure, and answers as it does in torch."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bartizan_connector.base.errors import Stop
from bartizan_connector.encode.encoder import Encoder
from bartizan_connector.encode.export import MODEL_FILE, PARITY_FILE, Export
from bartizan_connector.encode.onnx import OnnxEncoder
from bartizan_connector.space.spec import Precision, TowerSpec
from bartizan_connector.space.vectors import SparseVector, sparse_rows
from bartizan_connector.testing.encoder import EncoderSuite
from bartizan_encoders.local import TorchEncoder
from bartizan_encoders.tower import Tower
from bartizan_triton.closeness import measured, scores_differ
from bartizan_triton.export import export_tower
from bartizan_triton.parity import LIMITS, Parity, require
from tests.encoders import tiny
from tests.exports import export_folder, tower_folder

TEXTS = ["the tower of two", "", "how many 42?", "a, the tower! " * 9]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.packaging
class TestExport(EncoderSuite):
    def make(self) -> Encoder:
        return OnnxEncoder.open(export_folder("sparse-bert", "fp32"))


@pytest.mark.packaging
class TestInt8(EncoderSuite):
    def make(self) -> Encoder:
        return OnnxEncoder.open(export_folder("sparse-bert", "int8"))


@pytest.mark.packaging
class TestTorch(EncoderSuite):
    def make(self) -> Encoder:
        return TorchEncoder.open(tower_folder("sparse-bert"), threads=1)


@pytest.mark.packaging
@pytest.mark.parametrize(
    ("kind", "precision"),
    [("sparse-bert", "fp32"), ("sparse-bert", "int8"), ("sparse-llama", "fp32"), ("sparse-gpt2", "int8")],
)
def test_an_export_answers_like_its_tower(kind: str, precision: Precision) -> None:
    encoder, tower = OnnxEncoder.open(export_folder(kind, precision)), Tower.load(tower_folder(kind))
    for role in ("query", "document"):
        came = encoder.encode(TEXTS, role).values
        for position, text in enumerate(tower.tokens.encode(TEXTS, role)):
            with torch.no_grad():
                row = tower(torch.tensor([text.ids]), torch.ones(1, len(text.ids), dtype=torch.long))[0].numpy()
            value = came[position]
            assert isinstance(value, SparseVector)
            full = np.zeros_like(row)
            full[value.indices] = value.weights
            assert full @ row >= LIMITS["sparse"][precision].cosine * np.linalg.norm(full) * np.linalg.norm(row)
            if precision == "fp32":
                np.testing.assert_allclose(full, row, atol=1e-4)
    encoder.close()


def test_the_export_says_that_it_is_sparse_and_how_close_it_is() -> None:
    folder = export_folder("sparse-bert", "int8")
    spec = TowerSpec.read(folder)
    assert (spec.kind, spec.head, spec.similarity) == ("sparse", "lm", "dot")
    assert spec.space_id == TowerSpec.read(tower_folder("sparse-bert")).space_id
    report = json.loads((folder / PARITY_FILE).read_bytes())
    assert report["compared"].keys() >= {"difference", "cosine", "drift", "terms", "scores"}
    assert report["compared"]["scores"] <= report["limits"]["scores"]
    (output,) = onnx.load(folder / MODEL_FILE).graph.output
    assert [d.dim_param or d.dim_value for d in output.type.tensor_type.shape.dim] == ["batch", spec.dim]
    assert all(isinstance(value, SparseVector) for each in Export.read(folder).golden() for value in each.values)


@pytest.mark.packaging
def test_a_tower_in_bf16_is_exported_in_fp32_as_another_tower_of_its_space(tmp_path: Path) -> None:
    tower = tiny.tower(dim=8)
    tower.backbone.to(torch.bfloat16)
    kept = tower.save(tmp_path / "tower")
    exported = export_tower(tmp_path / "tower", tmp_path / "export")
    assert (kept.precision, exported.precision) == ("bf16", "fp32")
    assert exported.space_id == kept.space_id
    assert exported.tower_id != kept.tower_id
    encoder, reference = OnnxEncoder.open(tmp_path / "export"), TorchEncoder.open(tmp_path / "tower")
    products = encoder.encode(TEXTS, "query").values * reference.encode(TEXTS, "query").values
    assert products.sum(axis=1).min() > 0.99
    encoder.close()


WEIGHTS = st.lists(st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0]), min_size=6, max_size=6), min_size=3, max_size=3).map(
    lambda rows: np.array(rows, dtype=np.float32)
)


@given(WEIGHTS)
def test_closeness_is_that_of_the_whole_rows(rows: np.ndarray) -> None:
    expected, came, before = rows
    one, other, earlier = sparse_rows(rows)
    found = measured(one, other, earlier)
    length = np.linalg.norm(expected) or 1.0
    assert found.difference == pytest.approx(np.abs(expected - came).max() / length)
    assert found.drift == pytest.approx(np.abs(came - before).max() / length)
    lengths = np.linalg.norm(expected) * np.linalg.norm(came)
    assert found.cosine == pytest.approx(
        expected @ came / lengths if lengths else float(not expected.any() and not came.any())
    )
    alone = [max(a, b) for a, b in zip(expected, came, strict=True) if (a > 0) != (b > 0)]
    assert found.terms == pytest.approx(max(alone, default=0.0) / (max(expected.max(), came.max()) or 1.0))


@given(WEIGHTS, WEIGHTS)
def test_scores_are_those_of_the_whole_rows(expected: np.ndarray, came: np.ndarray) -> None:
    lengths = np.linalg.norm(expected, axis=1)
    worst = max(
        abs(float(expected[i] @ expected[j] - came[i] @ came[j])) / (lengths[i] * lengths[j] or 1.0)
        for i in range(3)
        for j in range(3)
    )
    pairs = list(zip(sparse_rows(expected), sparse_rows(came), strict=True))
    assert scores_differ(pairs) == pytest.approx(worst)


@pytest.mark.parametrize(
    ("found", "why"),
    [
        ({"terms": 0.01}, "a term of weight 0.01 .* stands in one alone"),
        ({"difference": 1e-3}, "a component differs by 0.001, at most 5e-04 may"),
        ({"scores": 1e-3}, "a score differs by 0.001, at most 5e-04 may"),
        ({"scores": float("nan")}, "a score differs by nan"),
        ({"terms": float("nan")}, "a term of weight nan"),
        ({"cosine": 0.9}, "cosine 0.90000"),
    ],
)
def test_each_limit_of_a_sparse_export_refuses_on_its_own(found: dict[str, float], why: str) -> None:
    spec = TowerSpec.read(export_folder("sparse-bert", "fp32"))
    fine = {"difference": 0.0, "cosine": 1.0, "drift": 0.0, "terms": 0.0, "scores": 0.0}
    require(Parity(texts=1, batches=1, longest=1, **fine), spec)
    with pytest.raises(Stop, match=why):
        require(Parity(texts=1, batches=1, longest=1, **(fine | found)), spec)
