"""The hash of the weights is computed anew exactly when they may have changed."""

import copy
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from bartizan_encoders import present
from bartizan_encoders.backbone import kept_as
from bartizan_encoders.present import PresentWeights
from bartizan_encoders.tower import Tower
from bartizan_encoders.weights import state_of, weights_hash
from tests.encoders import tiny


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was hashed since the test began."""
    made: list[str] = []

    def counted(state: dict[str, torch.Tensor]) -> str:
        made.append(weights_hash(state))
        return made[-1]

    monkeypatch.setattr(present, "weights_hash", counted)
    return made


def _in_place(tower: Tower) -> None:
    with torch.no_grad():
        next(tower.parameters()).view(-1)[7] += 1.0


def _step(optimiser: Callable[..., torch.optim.Optimizer], **how: object) -> Callable[[Tower], None]:
    def change(tower: Tower) -> None:
        stepping = optimiser(tower.parameters(), lr=0.01, **how)
        for weight in tower.parameters():
            weight.grad = torch.ones_like(weight)
        stepping.step()

    return change


def _load_state_dict(tower: Tower) -> None:
    tower.load_state_dict({name: tensor + 1 for name, tensor in tower.state_dict().items()})


def _replace_parameter(tower: Tower) -> None:
    embeddings = tower.backbone.get_input_embeddings()
    embeddings.weight = nn.Parameter(embeddings.weight.detach() * 2)


def _same_memory_another_parameter(tower: Tower) -> None:
    embeddings = tower.backbone.get_input_embeddings()
    old = embeddings.weight
    embeddings.weight = nn.Parameter(old.data)
    with torch.no_grad():
        while embeddings.weight._version < old._version:
            embeddings.weight.view(-1)[21].add_(1.0)
    assert embeddings.weight._version == old._version > 0


def _assign_data(tower: Tower) -> None:
    weight = next(tower.parameters())
    weight.data = weight.data + 1


def _assign_data_where_the_old_lay(tower: Tower) -> None:
    weight = next(tower.parameters())
    changed = (weight.detach() + 1).tolist()
    weight.data = torch.empty(0)
    weight.data = torch.tensor(changed)


def _write_behind_it(tower: Tower) -> None:
    for weight in tower.parameters():
        weight.data.mul_(1.5)


def _cast(tower: Tower) -> None:
    kept_as(tower.backbone, torch.bfloat16)


CHANGES: dict[str, Callable[[Tower], None]] = {
    "one number in place": _in_place,
    "a step of SGD": _step(torch.optim.SGD),
    "a step of AdamW": _step(torch.optim.AdamW),
    "a fused step": _step(torch.optim.AdamW, fused=True),
    "load_state_dict": _load_state_dict,
    "another parameter": _replace_parameter,
    "another parameter in the same memory": _same_memory_another_parameter,
    "other data": _assign_data,
    "other data where the old lay": _assign_data_where_the_old_lay,
    "all numbers behind torch's back": _write_behind_it,
    "another precision": _cast,
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("sparse", [False, True])
def test_a_change_is_seen(change: str, sparse: bool) -> None:
    tower = tiny.sparse_tower() if sparse else tiny.tower(dim=8)
    before = tower.spec
    CHANGES[change](tower)
    assert tower.spec.weights_hash == weights_hash(state_of(tower)) != before.weights_hash
    assert tower.spec.tower_id != before.tower_id


def test_a_buffer_counts_as_a_weight_does() -> None:
    module = nn.BatchNorm1d(3)
    hashes = PresentWeights()
    before = hashes.hash_of(module)
    module(torch.randn(4, 3))
    assert hashes.hash_of(module) == weights_hash(state_of(module)) != before


def test_weights_that_rest_are_not_hashed_again(hashed: list[str]) -> None:
    tower = tiny.tower(dim=8)
    first = tower.spec
    hashed.clear()
    with torch.no_grad():
        tower(torch.tensor([[2, 5, 3]]), torch.ones(1, 3, dtype=torch.long))
    tower.train()
    tower.requires_grad_(False)
    tower.to("cpu")
    for _ in range(3):
        assert tower.spec == first
    assert hashed == []


def test_saving_always_hashes_what_it_writes(hashed: list[str], tmp_path: Path) -> None:
    tower = tiny.tower(dim=8)
    before = tower.spec
    next(tower.parameters()).data.view(-1)[5] += 1.0  # torch does not count it, and no probe falls there
    assert tower.spec == before
    hashed.clear()
    folder = tmp_path / "tower"
    spec = tower.save(folder)
    assert len(hashed) == 1
    assert spec.weights_hash == weights_hash(state_of(tower)) != before.weights_hash
    assert Tower.load(folder).spec == spec == tower.spec


def test_a_copy_and_a_pickle_start_anew() -> None:
    tower = tiny.tower(dim=8)
    for other in (copy.deepcopy(tower), pickle.loads(pickle.dumps(tower._present))):
        hashes = other if isinstance(other, PresentWeights) else other._present
        assert hashes._hash is None
    twin = copy.deepcopy(tower)
    assert twin.spec == tower.spec
    _in_place(twin)
    assert twin.spec != tower.spec


def test_weights_made_for_inference_are_hashed_each_time(hashed: list[str]) -> None:
    with torch.inference_mode():
        module = nn.Linear(2, 2)
    hashes = PresentWeights()
    assert hashes.hash_of(module) == hashes.hash_of(module)
    assert len(hashed) == 2


def test_a_module_without_weights_has_a_hash() -> None:
    assert PresentWeights().hash_of(nn.Identity()) == weights_hash({})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_moving_to_another_device_keeps_the_hash_and_sees_what_changes_there() -> None:
    tower = tiny.tower(dim=8)
    before = tower.spec
    tower.cuda()
    assert tower.spec == before
    _in_place(tower)
    assert tower.spec != before
