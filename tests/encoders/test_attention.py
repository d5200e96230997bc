"""What a token may see: causal towers see what comes before, bidirectional ones all, and echo reads a text twice."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.space.spec import TowerSpec
from bartizan_encoders.attention import twice
from bartizan_encoders.design import Design
from bartizan_encoders.tower import Tower
from tests.encoders import tiny

DECODERS = ("llama", "qwen2", "qwen3", "mistral", "gemma2", "gpt_neox", "gpt2")
EARLY, LATE = torch.tensor([[1, 2, 3, 4, 5]]), torch.tensor([[1, 2, 3, 4, 6]])


def made(kind: str, **facts: object) -> Tower:
    """A sparse tower of that family that reads texts as `facts` say."""
    plain = tiny.sparse_tower(kind)
    design = Design.sparse(name="made", roles=plain.spec.roles, **facts)  # type: ignore[arg-type]
    head = plain.head
    return Tower.assemble(
        plain.backbone, head, architecture=plain.architecture, tokenizer=plain.tokens.text, design=design
    )


def hidden(tower: Tower, ids: Tensor) -> Tensor:
    with torch.no_grad():
        return tower.hidden(ids, torch.ones_like(ids))


@pytest.mark.parametrize("kind", DECODERS)
def test_a_late_token_changes_an_early_state_only_where_all_may_be_seen(kind: str) -> None:
    both = made(kind, attention="bidirectional")
    both_apart = (hidden(both, EARLY) - hidden(both, LATE)).abs().amax(dim=-1)[0]
    assert (both_apart > 1e-4).all()
    causal = tiny.sparse_tower(kind)
    assert torch.equal(hidden(causal, EARLY)[0, :4], hidden(causal, LATE)[0, :4])


def test_a_family_that_stays_causal_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bartizan_encoders.attention.sees_later_tokens", lambda _: False)
    with pytest.raises(WrongUse, match="a llama keeps to causal attention in the installed transformers"):
        made("llama", attention="bidirectional")


@pytest.mark.parametrize("facts", [{"attention": "bidirectional"}, {"echo": True}, {"top_terms": 7}])
def test_how_a_text_is_read_counts_is_kept_and_survives_a_cut(tmp_path: Path, facts: dict[str, object]) -> None:
    plain, tower = tiny.sparse_tower("llama").spec, made("llama", **facts)
    assert tower.spec.tower_id != plain.tower_id
    tower.save(tmp_path / "tower")
    loaded = Tower.load(tmp_path / "tower")
    assert loaded.spec == tower.spec
    mask = torch.ones_like(EARLY)
    with torch.no_grad():
        assert torch.equal(loaded(EARLY, mask), tower(EARLY, mask))
    for key, fact in facts.items():
        assert getattr(tower.cut([0]).spec, key) == fact


def test_a_tower_as_before_says_and_hashes_nothing_of_it() -> None:
    text = tiny.sparse_tower("llama").spec.to_json()
    assert not any(key in text for key in ("attention", "echo", "top_terms"))


def test_a_tower_is_told_to_see_all_by_its_spec() -> None:
    tower = tiny.sparse_tower("llama")
    before = hidden(tower, EARLY)
    tower.spec = tower.spec.model_copy(update={"attention": "bidirectional"})
    assert not torch.equal(hidden(tower, EARLY), before)
    with pytest.raises(WrongUse, match="load it as published"):
        tower.spec = tower.spec.model_copy(update={"attention": "published"})


def test_the_second_copy_follows_the_first_before_any_padding() -> None:
    ids = torch.tensor([[5, 6, 7, 8], [9, 1, 0, 0], [4, 0, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]])
    both, within, second = twice(ids, mask)
    for row in range(3):
        text = ids[row][mask[row] > 0].tolist()
        assert both[row][within[row] > 0].tolist() == text + text
        assert second[row][: len(text)].tolist() == list(range(len(text), 2 * len(text)))
    assert within.sum(dim=1).tolist() == [8, 4, 2]


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gpt2"])
@pytest.mark.parametrize("facts", [{"echo": True}, {"attention": "bidirectional"}, {}])
def test_a_text_has_the_same_vector_alone_and_beside_longer_ones(kind: str, facts: dict[str, object]) -> None:
    tower = made(kind, **facts)
    random = np.random.default_rng(0)
    texts = [torch.from_numpy(random.integers(1, 200, size)) for size in (3, 9, 1, 6)]
    ids, mask = torch.zeros(4, 9, dtype=torch.long), torch.zeros(4, 9, dtype=torch.long)
    for row, text in enumerate(texts):
        ids[row, : len(text)], mask[row, : len(text)] = text, 1
    with torch.no_grad():
        together = tower(ids, mask)
        for row, text in enumerate(texts):
            alone = tower(text[None], torch.ones(1, len(text), dtype=torch.long))[0]
            np.testing.assert_allclose(together[row].numpy(), alone.numpy(), atol=2e-5)


def test_echo_pools_what_a_causal_model_makes_of_the_second_copy() -> None:
    plain, echo = tiny.sparse_tower("llama"), made("llama", echo=True)
    twice_ids = torch.cat([EARLY, EARLY], dim=1)
    states = hidden(plain, twice_ids)[:, 5:]
    with torch.no_grad():
        expected = plain.pooled(states, torch.ones_like(EARLY))
        found = echo(EARLY, torch.ones_like(EARLY))
    np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=1e-6)


def test_only_the_heaviest_terms_are_kept() -> None:
    plain, few = tiny.sparse_tower("llama"), made("llama", top_terms=7)
    mask = torch.ones_like(EARLY)
    with torch.no_grad():
        all_terms, kept = plain(EARLY, mask)[0].numpy(), few(EARLY, mask)[0].numpy()
        assert torch.equal(few.raw(EARLY, mask), plain.raw(EARLY, mask))
    best = np.sort(np.argsort(-all_terms, kind="stable")[:7])
    assert (all_terms > 0).sum() > 7
    np.testing.assert_array_equal(np.flatnonzero(kept), best)
    np.testing.assert_array_equal(kept[best], all_terms[best])


def test_a_dense_tower_has_no_terms_to_keep() -> None:
    spec = tiny.tower().spec
    with pytest.raises(ValueError, match="only a sparse tower has terms to keep"):
        TowerSpec.model_validate(spec.model_dump() | {"top_terms": 3})
