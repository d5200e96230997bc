"""Backbones in bf16: half the memory, an identity of their own, and everything after the backbone in fp32."""

from pathlib import Path

import numpy as np
import pytest
import torch

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.space.spec import TowerSpec
from bartizan_encoders import backbone as backbones
from bartizan_encoders.tower import Tower
from bartizan_encoders.weights import WEIGHTS_FILE, read_weights
from tests.encoders import tiny

IDS = torch.tensor([[2, 5, 6, 7, 3], [2, 8, 3, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])


def _saved(folder: Path, kind: str, *, sparse: bool) -> Tower:
    tower = tiny.sparse_tower(kind) if sparse else tiny.tower(kind, dim=8)
    tower.save(folder)
    return tower


@pytest.mark.packaging
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("kind", tiny.LANGUAGE_MODELS)
def test_a_tower_in_bf16_is_another_one_in_the_same_space(kind: str, sparse: bool, tmp_path: Path) -> None:
    fine = _saved(tmp_path / "fine", kind, sparse=sparse)
    coarse = Tower.load(tmp_path / "fine", dtype=torch.bfloat16)
    assert coarse.spec.precision == "bf16"
    assert coarse.spec.space_id == fine.spec.space_id
    assert coarse.spec.tower_id != fine.spec.tower_id
    vectors = coarse(IDS, MASK)
    assert vectors.dtype == torch.float32
    assert (torch.cosine_similarity(vectors, fine(IDS, MASK)) > 0.99).all()
    assert not torch.equal(vectors, fine(IDS, MASK))
    spec = coarse.save(tmp_path / "coarse")
    again = Tower.load(tmp_path / "coarse")
    assert again.spec == spec == coarse.spec == TowerSpec.read(tmp_path / "coarse")
    assert torch.equal(again(IDS, MASK), vectors)


def test_it_takes_half_the_memory_and_half_the_disk(tmp_path: Path) -> None:
    _saved(tmp_path / "fine", "llama", sparse=True)
    coarse = Tower.load(tmp_path / "fine", dtype=torch.bfloat16)
    coarse.save(tmp_path / "coarse")
    held = [
        sum(t.numel() * t.element_size() for t in read_weights(tmp_path / name).values()) for name in ("fine", "coarse")
    ]
    assert held[1] * 2 == held[0]
    assert (tmp_path / "coarse" / WEIGHTS_FILE).stat().st_size < 0.75 * (
        tmp_path / "fine" / WEIGHTS_FILE
    ).stat().st_size


def test_pooling_head_and_normalisation_are_computed_in_fp32(tmp_path: Path) -> None:
    _saved(tmp_path / "fine", "bert", sparse=False)
    tower = Tower.load(tmp_path / "fine", dtype=torch.bfloat16)
    assert tower.head is not None
    with torch.no_grad():
        hidden = tower.hidden(IDS, MASK)
        came = tower(IDS, MASK)
    assert hidden.dtype == torch.bfloat16
    weight, bias = (part.detach().double().numpy() for part in (tower.head.weight, tower.head.bias))
    for row, length in enumerate(MASK.sum(dim=1).tolist()):
        expected = weight @ hidden[row, :length].double().numpy().mean(axis=0) + bias
        np.testing.assert_allclose(came[row].numpy(), expected / np.linalg.norm(expected), rtol=0, atol=1e-6)


def test_the_head_of_a_language_model_is_computed_in_fp32(tmp_path: Path) -> None:
    _saved(tmp_path / "fine", "llama", sparse=True)
    tower = Tower.load(tmp_path / "fine", dtype=torch.bfloat16)
    assert tower.head is not None
    with torch.no_grad():
        hidden = tower.hidden(IDS, MASK)
        came = tower(IDS, MASK)
    weight = tower.head.weight.detach().double().numpy()
    assert tower.head.weight.dtype == torch.bfloat16
    for row, length in enumerate(MASK.sum(dim=1).tolist()):
        logits = hidden[row, :length].double().numpy() @ weight.T
        np.testing.assert_allclose(came[row].numpy(), np.log1p(np.maximum(logits, 0)).max(axis=0), rtol=0, atol=1e-5)


def test_the_angles_of_rotary_positions_stay_fine(tmp_path: Path) -> None:
    fine = _saved(tmp_path / "fine", "llama", sparse=False)
    coarse = Tower.load(tmp_path / "fine", dtype=torch.bfloat16)
    angles = [dict(tower.backbone.named_buffers())["rotary_emb.inv_freq"] for tower in (fine, coarse)]
    assert torch.equal(*angles)
    assert angles[1].dtype == torch.float32


def test_a_tower_is_not_cast_as_a_whole(tmp_path: Path) -> None:
    tower = tiny.tower("llama", dim=8)
    for cast in (tower.bfloat16, tower.half, lambda: tower.to(torch.bfloat16)):
        with pytest.raises(WrongUse, match=r"load it with Tower\.load\(folder, dtype=torch\.bfloat16\)"):
            cast()
    assert {weight.dtype for weight in tower.parameters()} == {torch.float32}
    assert tower.double().to("cpu").float().spec == tower.spec


def test_a_tower_whose_backbone_was_cast_does_not_go_on_as_fp32() -> None:
    tower = tiny.tower("bert", dim=8)
    tower.spec = tower.spec.aligned_to(tiny.tower("bert", dim=8, seed=4).spec)
    backbones.kept_as(tower.backbone, torch.bfloat16)
    assert tower.spec.precision == "bf16"
    assert tower.spec.space_id == tower.spec.tower_id
    assert tower(IDS, MASK).dtype == torch.float32


@pytest.mark.parametrize("sparse", [False, True])
def test_half_precision_by_autocast_trains_an_fp32_tower(sparse: bool) -> None:
    tower = tiny.sparse_tower("llama") if sparse else tiny.tower("llama", dim=8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        vectors = tower(IDS, MASK)
    assert tower.spec.precision == "fp32"
    assert (torch.cosine_similarity(vectors.float(), tower(IDS, MASK)) > 0.99).all()
    vectors.float()[:, :4].square().sum().backward()
    gradients = [weight.grad for weight in tower.parameters()]
    assert all(gradient is not None and gradient.dtype == torch.float32 for gradient in gradients)


def test_back_in_fp32_it_is_a_third_tower_of_that_space(tmp_path: Path) -> None:
    fine = _saved(tmp_path / "fine", "bert", sparse=True)
    coarse = Tower.load(tmp_path / "fine", dtype=torch.bfloat16)
    coarse.save(tmp_path / "coarse")
    widened = Tower.load(tmp_path / "coarse", dtype=torch.float32)
    assert widened.spec.precision == "fp32"
    assert widened.spec.space_id == fine.spec.space_id
    assert len({tower.spec.tower_id for tower in (fine, coarse, widened)}) == 3


def test_a_cut_tower_stays_in_bf16(tmp_path: Path) -> None:
    _saved(tmp_path / "fine", "bert", sparse=True)
    student = Tower.load(tmp_path / "fine", dtype=torch.bfloat16).cut([0, 2])
    assert student.spec.precision == "bf16"
    student.save(tmp_path / "student")
    assert torch.equal(Tower.load(tmp_path / "student")(IDS, MASK), student(IDS, MASK))


def test_a_precision_that_towers_do_not_know_is_refused(tmp_path: Path) -> None:
    _saved(tmp_path / "fine", "bert", sparse=False)
    with pytest.raises(WrongUse, match=r"kept in one of fp32, bf16, not in torch\.float16"):
        Tower.load(tmp_path / "fine", dtype=torch.float16)


@pytest.mark.parametrize("sparse", [False, True])
def test_it_can_be_trained(sparse: bool, tmp_path: Path) -> None:
    _saved(tmp_path / "fine", "llama", sparse=sparse)
    tower = Tower.load(tmp_path / "fine", dtype=torch.bfloat16).train()
    before = tower.spec.tower_id
    tower(IDS, MASK)[:, 0].sum().backward()
    for weight in tower.parameters():
        if weight.grad is not None:
            assert weight.grad.dtype == weight.dtype
    torch.optim.SGD(tower.parameters(), lr=1.0).step()
    assert tower.spec.tower_id != before
