"""Towers over the head of a language model: the library's own logits, tied weights once on disk and one in memory."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING

from bartizan_connector.base.errors import SpaceMismatch, Stop, WrongUse
from bartizan_connector.space.spec import RoleSpec, TowerSpec
from bartizan_encoders import backbone as backbones
from bartizan_encoders import language_model
from bartizan_encoders.design import Design
from bartizan_encoders.language_model import LanguageModelHead
from bartizan_encoders.sparse_rows import sparse_rows
from bartizan_encoders.tower import Tower
from bartizan_encoders.weights import WEIGHTS_FILE, read_weights
from tests.encoders import tiny

IDS = torch.tensor([[2, 5, 6, 7, 3], [2, 8, 3, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
ROLES = {"query": RoleSpec(max_tokens=20)}


def _head(tower: Tower) -> LanguageModelHead:
    assert isinstance(tower.head, LanguageModelHead)
    return tower.head


def _is_tied(tower: Tower) -> bool:
    return _head(tower).weight is tower.backbone.get_input_embeddings().weight


@pytest.mark.parametrize("kind", tiny.LANGUAGE_MODELS)
def test_logits_are_those_of_the_librarys_language_model(kind: str, tmp_path: Path) -> None:
    config = backbones.configuration(tiny.architecture(kind))
    mapping = (
        MODEL_FOR_MASKED_LM_MAPPING if type(config) in MODEL_FOR_MASKED_LM_MAPPING else MODEL_FOR_CAUSAL_LM_MAPPING
    )
    torch.manual_seed(3)
    with backbones.quiet_transformers():
        model = mapping[type(config)](config).eval()
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(torch.randn_like(weight) * 0.2)
        model.save_pretrained(tmp_path)
    backbone, head = language_model.pretrained(tmp_path, config.to_dict(), torch.float32)
    with torch.no_grad():
        expected = model(input_ids=IDS, attention_mask=MASK).logits
        came = head(backbone(input_ids=IDS, attention_mask=MASK).last_hidden_state)
    torch.testing.assert_close(came[MASK > 0], expected[MASK > 0], rtol=0, atol=1e-5)
    assert expected.std() > 0.05


@pytest.mark.packaging
@pytest.mark.parametrize("kind", tiny.LANGUAGE_MODELS)
@pytest.mark.parametrize("tied", [True, False])
def test_a_loaded_tower_gives_the_same_vectors_bit_by_bit(kind: str, tied: bool, tmp_path: Path) -> None:
    tower = tiny.sparse_tower(kind, tied=tied)
    assert _is_tied(tower) == tied
    spec = tower.save(tmp_path / "tower")
    loaded = Tower.load(tmp_path / "tower")
    assert loaded.spec == spec == TowerSpec.read(tmp_path / "tower")
    assert (spec.kind, spec.head, spec.dim, spec.pooling) == ("sparse", "lm", tiny.VOCABULARY, "max")
    assert torch.equal(loaded(IDS, MASK), tower(IDS, MASK))
    assert (tower(IDS, MASK) > 0).float().mean() > 0.1
    assert all(weight.requires_grad for weight in loaded.parameters())
    assert _is_tied(loaded) == tied
    assert loaded.state_dict().keys() == tower.state_dict().keys()


def test_a_tied_weight_is_stored_once_and_training_moves_both(tmp_path: Path) -> None:
    tower = tiny.sparse_tower("llama", tied=True)
    tower.save(tmp_path / "tower")
    assert "head.weight" not in read_weights(tmp_path / "tower")
    loaded = Tower.load(tmp_path / "tower")
    before = loaded.backbone.get_input_embeddings().weight.clone()
    optimiser = torch.optim.SGD(loaded.parameters(), lr=0.1)
    loaded(IDS, MASK).sum().backward()
    optimiser.step()
    assert _is_tied(loaded)
    assert not torch.equal(_head(loaded).weight, before)
    loaded.save(tmp_path / "trained")
    assert torch.equal(Tower.load(tmp_path / "trained")(IDS, MASK), loaded(IDS, MASK))


@pytest.mark.parametrize("kind", tiny.LANGUAGE_MODELS)
def test_padding_changes_no_vector(kind: str) -> None:
    tower = tiny.sparse_tower(kind)
    alone = tower(IDS[1:, :3], MASK[1:, :3])
    torch.testing.assert_close(tower(IDS, MASK)[1:], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "distilbert", "llama"])
def test_vectors_are_backbone_head_activation_and_pooling(kind: str) -> None:
    tower = tiny.sparse_tower(kind).double()
    with torch.no_grad():
        logits = _head(tower)(tower.hidden(IDS, MASK)).numpy()
        values = tower(IDS, MASK)
    for row, length in enumerate(MASK.sum(dim=1).tolist()):
        expected = np.log1p(np.maximum(logits[row, :length], 0.0)).max(axis=0)
        np.testing.assert_allclose(values[row].numpy(), expected, rtol=0, atol=1e-12)
        np.testing.assert_array_equal(sparse_rows(values)[row].indices, np.flatnonzero(expected))


def test_a_head_with_two_linear_maps_and_a_norm_is_run_whole() -> None:
    tower = tiny.sparse_tower("bert").double()
    state = {name: weight.numpy() for name, weight in _head(tower).state_dict().items()}
    at = "transform.cls.predictions.transform"
    with torch.no_grad():
        hidden = tower.hidden(IDS, MASK)[0].numpy()
        came = _head(tower)(tower.hidden(IDS, MASK))[0].numpy()
    dense = hidden @ state[f"{at}.dense.weight"].T + state[f"{at}.dense.bias"]
    gelu = nn.functional.gelu(torch.from_numpy(dense)).numpy()
    centred = gelu - gelu.mean(axis=-1, keepdims=True)
    normed = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-12)
    scaled = normed * state[f"{at}.LayerNorm.weight"] + state[f"{at}.LayerNorm.bias"]
    np.testing.assert_allclose(came, scaled @ state["weight"].T + state["bias"], rtol=0, atol=1e-9)


@pytest.mark.parametrize(("kind", "layers"), [("bert", [0, 2]), ("llama", [0]), ("opt", [1])])
@pytest.mark.parametrize("tied", [True, False])
def test_a_cut_tower_keeps_its_head_and_shares_nothing(
    kind: str, layers: list[int], tied: bool, tmp_path: Path
) -> None:
    tower = tiny.sparse_tower(kind, tied=tied)
    depth = tower.backbone.config.num_hidden_layers
    copy = tower.cut(range(depth))
    assert torch.equal(copy(IDS, MASK), tower(IDS, MASK))
    assert copy.spec.tower_id == tower.spec.tower_id
    student = tower.cut(layers)
    assert (student.spec.kind, student.spec.pooling, student.spec.dim) == ("sparse", "max", tiny.VOCABULARY)
    assert _is_tied(student) == tied
    before = tower(IDS, MASK)
    with torch.no_grad():
        for weight in (*copy.parameters(), *student.parameters()):
            weight.add_(1.0)
    assert torch.equal(tower(IDS, MASK), before)
    student.save(tmp_path / "student")
    assert torch.equal(Tower.load(tmp_path / "student")(IDS, MASK), student(IDS, MASK))


def test_any_weight_of_the_head_counts_and_so_does_being_tied() -> None:
    tower = tiny.sparse_tower("bert", tied=False)
    seen = {tower.spec.tower_id}
    for weight in _head(tower).parameters():
        with torch.no_grad():
            weight.view(-1)[-1] += 0.25
        seen.add(tower.spec.tower_id)
    assert len(seen) == len(list(_head(tower).parameters())) + 1
    tied = tiny.sparse_tower("llama", tied=True)
    untied = tiny.sparse_tower("llama", tied=True)
    _head(untied).weight = nn.Parameter(_head(tied).weight.detach().clone())
    assert torch.equal(tied(IDS, MASK), untied(IDS, MASK))
    assert untied.spec.weights_hash != tied.spec.weights_hash


def test_a_head_that_lacks_a_weight_or_has_one_too_many_is_refused(tmp_path: Path) -> None:
    for kind, name in (("bert", "head.transform.cls.predictions.transform.dense.bias"), ("llama", "head.more")):
        folder = tiny.sparse_tower(kind)
        folder.save(tmp_path / kind)
        state = load_file(tmp_path / kind / WEIGHTS_FILE)
        if state.pop(name, None) is None:
            state[name] = torch.zeros(2)
        save_file(state, tmp_path / kind / WEIGHTS_FILE)
        with pytest.raises(SpaceMismatch, match="does not belong to the spec"):
            Tower.load(tmp_path / kind)
        bare = {key.removeprefix("head."): value for key, value in state.items() if key.startswith("head.")}
        with pytest.raises(Stop, match=r"the file does not fit its config\.json"):
            language_model.load(bare, folder.backbone, origin="the file")


def test_a_model_without_such_a_head_is_refused() -> None:
    with pytest.raises(WrongUse, match="'t5' has no language-model head"):
        Tower.fresh(tiny.architecture("t5"), tiny.words_tokenizer(), Design.sparse(name="t", roles=ROLES))


def test_a_head_that_computes_more_than_towers_know_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(language_model, "_factor", lambda config: 2.0)
    with pytest.raises(WrongUse, match="head of a bert computes more than towers know"):
        language_model.build(tiny.architecture("bert"))


@pytest.mark.parametrize("facts", [{"logit_scale": 0.25}, {"logits_scaling": 4.0}])
def test_a_factor_on_the_logits_is_taken_over(facts: dict[str, float]) -> None:
    kind = "cohere" if "logit_scale" in facts else "granite"
    shape = tiny.ARCHITECTURES["llama"] | facts | {"model_type": kind, "vocab_size": 30, "pad_token_id": 0}
    torch.manual_seed(1)
    _, head = language_model.build(shape)  # which compares it with the library's
    hidden = torch.randn(1, 2, 16)
    torch.testing.assert_close(head(hidden), hidden @ head.weight.T * 0.25)


def test_kind_head_and_form_must_go_together() -> None:
    with pytest.raises(WrongUse, match="a sparse tower keeps its weights as they are"):
        Design(name="t", roles=ROLES, kind="sparse")
    with pytest.raises(WrongUse, match="as wide as its vocabulary"):
        Tower.fresh(tiny.architecture("bert"), tiny.words_tokenizer(), Design.sparse(name="t", roles=ROLES), dim=8)
    dense = tiny.tower("bert", dim=8)
    with pytest.raises(WrongUse, match="is to be sparse, but its head is Linear"):
        Tower.assemble(
            dense.backbone,
            dense.head,
            architecture=dense.architecture,
            tokenizer=dense.tokens.text,
            design=Design.sparse(name="t", roles=ROLES),
        )


def test_a_linear_head_without_bias_is_kept_so(tmp_path: Path) -> None:
    made = tiny.tower("t5")
    tower = Tower.assemble(
        made.backbone,
        nn.Linear(16, 12, bias=False),
        architecture=made.architecture,
        tokenizer=made.tokens.text,
        design=Design(name="gtr", roles=ROLES),
    )
    tower.save(tmp_path / "tower")
    loaded = Tower.load(tmp_path / "tower")
    assert loaded.head is not None
    assert loaded.head.bias is None
    assert torch.equal(loaded(IDS, MASK), tower(IDS, MASK))
