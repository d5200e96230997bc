"""Towers: saved and loaded whole, refused when a file does not belong, cut without changing what is kept."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from bartizan_connector.base.errors import SpaceMismatch, Stop, WrongUse
from bartizan_connector.space.spec import SPEC_FILE, RoleSpec, TowerSpec
from bartizan_connector.space.tokens import TOKENIZER_FILE
from bartizan_encoders.backbone import CONFIG_FILE
from bartizan_encoders.design import Design
from bartizan_encoders.tower import Tower
from bartizan_encoders.weights import WEIGHTS_FILE
from tests.encoders import tiny

IDS = torch.tensor([[2, 5, 6, 7, 3], [2, 8, 3, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])


@pytest.fixture
def folder(bert_folder: Path, tmp_path: Path) -> Path:
    """A copy of a tower to spoil."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in bert_folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    return copy


@pytest.mark.parametrize("kind", sorted(tiny.ARCHITECTURES))
def test_a_loaded_tower_gives_the_same_vectors_bit_by_bit(kind: str, tmp_path: Path) -> None:
    tower = tiny.tower(kind, dim=8)
    spec = tower.save(tmp_path / "tower")
    loaded = Tower.load(tmp_path / "tower")
    assert loaded.spec == spec == TowerSpec.read(tmp_path / "tower")
    assert torch.equal(loaded(IDS, MASK), tower(IDS, MASK))
    assert all(weight.requires_grad for weight in loaded.parameters())


@pytest.mark.parametrize("kind", sorted(tiny.ARCHITECTURES))
def test_padding_changes_no_vector(kind: str) -> None:
    tower = tiny.tower(kind)
    alone = tower(IDS[1:, :3], MASK[1:, :3])
    torch.testing.assert_close(tower(IDS, MASK)[1:], alone, rtol=0, atol=1e-5)


def test_vectors_are_backbone_pooling_head_and_normalisation() -> None:
    tower = tiny.tower(dim=8)
    assert tower.head is not None
    hidden = tower.backbone(input_ids=IDS[:1]).last_hidden_state[0].detach().numpy()
    head = {name: weight.detach().numpy() for name, weight in tower.head.named_parameters()}
    expected = head["weight"] @ hidden.mean(axis=0) + head["bias"]
    expected /= np.linalg.norm(expected)
    np.testing.assert_allclose(tower(IDS[:1], MASK[:1])[0].detach().numpy(), expected, rtol=0, atol=1e-6)


def test_a_tower_that_does_not_normalise_keeps_its_lengths() -> None:
    raw, unit = tiny.tower(normalise=False), tiny.tower()
    torch.testing.assert_close(F.normalize(raw(IDS, MASK), dim=-1), unit(IDS, MASK))
    assert raw.spec.similarity == "dot"


def test_the_spec_is_that_of_the_present_weights_and_a_changed_tower_leaves_its_space() -> None:
    document, tower = tiny.tower(seed=1), tiny.tower(seed=2)
    own = tower.spec.tower_id
    tower.spec = tower.spec.aligned_to(document.spec)
    assert tower.spec.space_id == document.spec.space_id
    assert tower.spec.tower_id == own
    with torch.no_grad():
        next(tower.parameters()).add_(1.0)
    assert tower.spec.tower_id != own
    assert tower.spec.space_id == tower.spec.tower_id


def test_roles_and_name_can_be_declared_anew_but_parts_cannot() -> None:
    tower = tiny.tower()
    query_only = {"query": RoleSpec(prefix="q: ", max_tokens=12)}
    tower.spec = tower.spec.model_copy(update={"name": "renamed", "roles": query_only})
    assert tower.spec.name == "renamed"
    assert len(tower.tokens.encode(["the tower of one two the tower of one two"], "query")[0].ids) == 12
    with pytest.raises(SpaceMismatch):
        tower.spec = tiny.tower(seed=3).spec


def test_a_truncated_weights_file_is_refused(folder: Path) -> None:
    content = (folder / WEIGHTS_FILE).read_bytes()
    (folder / WEIGHTS_FILE).write_bytes(content[: len(content) // 2])
    with pytest.raises(Stop, match=r"model\.safetensors is damaged") as caught:
        Tower.load(folder)
    assert caught.value.exit_code == 1


def test_one_flipped_bit_in_the_weights_is_refused(folder: Path) -> None:
    content = bytearray((folder / WEIGHTS_FILE).read_bytes())
    content[-3] ^= 1
    (folder / WEIGHTS_FILE).write_bytes(content)
    with pytest.raises(SpaceMismatch, match=r"model\.safetensors does not belong to the spec beside it"):
        Tower.load(folder)


def test_another_towers_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    other = tiny.saved(tmp_path / "other", dim=8, seed=9)
    (folder / WEIGHTS_FILE).write_bytes((other / WEIGHTS_FILE).read_bytes())
    with pytest.raises(SpaceMismatch) as caught:
        Tower.load(folder)
    assert caught.value.exit_code == 3


def test_an_edited_configuration_is_refused(folder: Path) -> None:
    facts = json.loads((folder / CONFIG_FILE).read_text())
    (folder / CONFIG_FILE).write_text(json.dumps(facts | {"num_attention_heads": 4}))
    with pytest.raises(SpaceMismatch, match=r"config\.json does not belong"):
        Tower.load(folder)


def test_a_reformatted_configuration_is_not(folder: Path, bert_folder: Path) -> None:
    facts = json.loads((folder / CONFIG_FILE).read_text())
    (folder / CONFIG_FILE).write_text(json.dumps(dict(reversed(facts.items())) | {"transformers_version": "1.0"}))
    assert Tower.load(folder).spec == Tower.load(bert_folder).spec


def test_an_edited_tokenizer_is_refused(folder: Path) -> None:
    facts = json.loads((folder / TOKENIZER_FILE).read_text())
    facts["normalizer"]["lowercase"] = False
    (folder / TOKENIZER_FILE).write_text(json.dumps(facts))
    with pytest.raises(SpaceMismatch, match=r"tokenizer\.json is not the tokenizer"):
        Tower.load(folder)


def test_an_edited_spec_is_refused(folder: Path) -> None:
    path = folder / SPEC_FILE
    path.write_text(path.read_text().replace('"mean"', '"cls"'))
    with pytest.raises(SpaceMismatch, match="was changed after it was written"):
        Tower.load(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"hidden_size": 3}'])
def test_a_damaged_configuration_is_refused(folder: Path, content: bytes) -> None:
    (folder / CONFIG_FILE).write_bytes(content)
    with pytest.raises(Stop, match=r"config\.json"):
        Tower.load(folder)


@pytest.mark.parametrize("name", [WEIGHTS_FILE, CONFIG_FILE, TOKENIZER_FILE, SPEC_FILE])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(Stop, match=name.replace(".", r"\.")):
        Tower.load(folder)


def test_a_model_type_that_nobody_knows_is_refused() -> None:
    with pytest.raises(WrongUse, match="cannot build a model of type 'mystery'"):
        Tower.fresh(
            {"model_type": "mystery"}, tiny.words_tokenizer(), Design(name="t", roles={"query": RoleSpec(max_tokens=8)})
        )


def test_a_tower_replaces_a_tower_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    tower = tiny.tower(seed=5)
    tower.save(folder)
    assert Tower.load(folder).spec == tower.spec
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").touch()
    with pytest.raises(WrongUse, match="not empty"):
        tower.save(tmp_path / "home")


@pytest.mark.parametrize("kind", ["bert", "t5", "llama", "gpt2", "distilbert"])
def test_keeping_every_layer_is_a_copy(kind: str) -> None:
    tower = tiny.tower(kind, dim=8)
    copy = tower.cut(range(tower.backbone.config.num_hidden_layers))
    assert torch.equal(copy(IDS, MASK), tower(IDS, MASK))
    assert copy.spec.tower_id == tower.spec.tower_id
    with torch.no_grad():
        for weight in copy.parameters():
            weight.zero_()
    assert all(weight.abs().sum() > 0 for name, weight in tower.named_parameters() if weight.ndim == 2)


@pytest.mark.parametrize(("kind", "layers"), [("bert", "encoder.layer"), ("modernbert", "layers")])
def test_a_cut_tower_computes_with_the_kept_layers_only(kind: str, layers: str) -> None:
    tower = tiny.tower(kind, dim=8)
    student = tower.cut([0, 2])
    skipped = tower.backbone.get_submodule(f"{layers}.1")
    handle = skipped.register_forward_hook(lambda _module, given, _came: given[0])
    expected = tower(IDS, MASK)
    handle.remove()
    assert torch.equal(student(IDS, MASK), expected)
    assert student.backbone.config.num_hidden_layers == 2
    assert student.spec.space_id == student.spec.tower_id != tower.spec.tower_id


def test_a_cut_tower_can_be_saved_and_loaded(tmp_path: Path) -> None:
    student = tiny.tower("modernbert").cut([0, 2])
    student.save(tmp_path / "student")
    assert torch.equal(Tower.load(tmp_path / "student")(IDS, MASK), student(IDS, MASK))


@pytest.mark.parametrize("layers", [[], [3], [-1], [1, 0], [0, 0]])
def test_layers_that_are_not_there_are_refused(layers: list[int]) -> None:
    with pytest.raises(WrongUse, match="expected rising numbers from 0 to 2"):
        tiny.tower().cut(layers)


@pytest.mark.parametrize(("kind", "why"), [("t5", "relative_attention_bias"), ("modernbert", "attn_norm")])
def test_a_layer_that_others_lean_on_cannot_be_left_out(kind: str, why: str) -> None:
    with pytest.raises(WrongUse, match=rf"cannot do with layers \[1\].*{why}"):
        tiny.tower(kind).cut([1])
