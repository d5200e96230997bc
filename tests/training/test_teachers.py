"""Both teachers: what they compute, against a slow oracle; what they learn, and that their scores are found again."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bartizan_connector.base.errors import Stop, WrongUse
from bartizan_encoders.tower import Tower
from bartizan_training.data.packing import Budget, Packed, TokenIds
from bartizan_training.teachers.cross_encoder import CrossEncoder, PairTable, opening
from bartizan_training.teachers.late_interaction import LateInteraction, max_sim, max_sim_of_pairs
from bartizan_training.teachers.scoring import Pairs, scores_of
from tests.training import toy

QUERIES = ("ask1 ask2 ask3", "ask9", "ask4 ask5")
DOCUMENTS = ("thing1 thing2", "thing9 thing8 thing7 thing6", "thing4", "thing3 thing3 thing3")


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.tower(tmp_path_factory.mktemp("teachers") / "tower")


def cross_encoder(tower: Path, seed: int = 0) -> CrossEncoder:
    torch.manual_seed(seed)
    start = Tower.load(tower)
    return CrossEncoder.over(start, name="x", pooling="cls", query_tokens=8, document_tokens=8).eval()


def late_interaction(tower: Path, dim: int | None = None) -> LateInteraction:
    torch.manual_seed(0)
    start = Tower.load(tower)
    options = {"name": "x", "query_tokens": 8, "document_tokens": 8, "query_masks": 0}
    return LateInteraction.over(start, dim=dim, **options).eval()  # type: ignore[arg-type]


def test_a_pair_is_one_text_with_the_second_ones_opening_left_out(tower: Path) -> None:
    tokens = cross_encoder(tower).tower.tokens
    assert opening(tokens) == 1
    ids, lengths = PairTable(tokens, QUERIES, DOCUMENTS).pick(np.array([1, 0]), np.array([2, 1]))
    words = [[toy.WORDS[id] for id in row] for row in ids]
    assert words == [
        ["[CLS]", "ask9", "[SEP]", "thing4", "[SEP]"],
        ["[CLS]", "ask1", "ask2", "ask3", "[SEP]", "thing9", "thing8", "thing7", "thing6", "[SEP]"],
    ]
    assert lengths.tolist() == [3, 5]


@torch.no_grad()
def test_a_score_is_the_same_alone_and_in_any_batch_and_the_backbone_is_told_both_segments(tower: Path) -> None:
    model = cross_encoder(tower)
    table = PairTable(model.tower.tokens, QUERIES, DOCUMENTS)
    queries, documents = np.array([0, 1, 2, 0, 1]), np.array([1, 0, 3, 2, 1])
    ids, lengths = table.pick(queries, documents)
    together = model(Packed.of(ids, Budget(tokens=24)), lengths, "fp32")
    expected = []
    for row, first in zip(ids, lengths, strict=True):
        one = torch.from_numpy(row.astype(np.int64))[None]
        types = (torch.arange(one.shape[1]) >= first).long()[None]
        hidden = model.tower.backbone(input_ids=one, token_type_ids=types).last_hidden_state
        assert model.tower.head is not None
        expected.append(model.tower.head(hidden[:, 0])[0, 0].item())
    np.testing.assert_allclose(together.numpy(), expected, atol=1e-6)


def max_sim_oracle(q: np.ndarray, d: np.ndarray) -> float:
    return float(sum(max(float(a @ b) for b in d) for a in q))


@given(
    lengths=st.lists(st.integers(1, 6), min_size=2, max_size=5),
    others=st.lists(st.integers(1, 9), min_size=1, max_size=7),
    seed=st.integers(0, 100),
)
@settings(deadline=None)
def test_max_sim_equals_the_oracle_and_padding_never_counts(lengths: list[int], others: list[int], seed: int) -> None:
    random = torch.Generator().manual_seed(seed)

    def made(sizes: list[int]) -> tuple[torch.Tensor, torch.Tensor, list[np.ndarray]]:
        vectors = torch.randn(len(sizes), max(sizes) + 1, 4, generator=random, dtype=torch.float64)
        mask = torch.tensor([[int(place < size) for place in range(vectors.shape[1])] for size in sizes])
        own = [row[:size].numpy() for row, size in zip(vectors, sizes, strict=True)]
        return vectors, mask, own

    q, q_mask, q_own = made(lengths)
    d, d_mask, d_own = made(others)
    expected = [[max_sim_oracle(a, b) for b in d_own] for a in q_own]
    np.testing.assert_allclose(max_sim(q, q_mask, d, d_mask).numpy(), expected, rtol=1e-12)
    size = min(len(lengths), len(others))
    pairs = max_sim_of_pairs(q[:size], q_mask[:size], d[:size], d_mask[:size])
    np.testing.assert_allclose(pairs.numpy(), np.diagonal(expected)[:size], rtol=1e-12)


def test_documents_may_be_taken_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    q, d = torch.randn(3, 4, 5), torch.randn(7, 6, 5)
    masks = torch.ones(3, 4, dtype=torch.long), torch.ones(7, 6, dtype=torch.long)
    whole = max_sim(q, masks[0], d, masks[1])
    monkeypatch.setattr("bartizan_training.teachers.late_interaction._MOST_AT_ONCE", 3 * 4 * 6 * 2)
    torch.testing.assert_close(max_sim(q, masks[0], d, masks[1]), whole)


@torch.no_grad()
@pytest.mark.parametrize("dim", [None, 6])
def test_each_token_has_its_vector_in_the_texts_order(tower: Path, dim: int | None) -> None:
    model = late_interaction(tower, dim)
    ids = model.documents(DOCUMENTS).pick(np.array([2, 1, 0, 3]))
    vectors, mask = model(Packed.of(ids, Budget(tokens=8)), "fp32")
    assert vectors.shape == (4, 6, dim or 32)
    assert mask.sum(dim=1).tolist() == ids.lengths.tolist() == [3, 6, 4, 5]
    for row, found, length in zip(ids, vectors, ids.lengths, strict=True):
        one = torch.from_numpy(row.astype(np.int64))[None]
        expected = model.tower.hidden(one, torch.ones_like(one))[0]
        if model.tower.head is not None:
            expected = model.tower.head(expected)
        torch.testing.assert_close(found[:length], expected, atol=1e-6, rtol=1e-5)


def test_mask_tokens_stand_behind_each_query(tower: Path) -> None:
    model = late_interaction(tower)
    model.query_masks, model._mask_id = 2, 77
    texts = TokenIds(np.array([2, 5, 3, 2, 6, 7, 3], dtype=np.int32), np.array([3, 4]))
    assert [row.tolist() for row in model.with_masks(texts)] == [[2, 5, 3, 77, 77], [2, 6, 7, 3, 77, 77]]


def test_mask_tokens_that_the_tokenizer_does_not_have_are_refused(tower: Path) -> None:
    with pytest.raises(WrongUse, match=r"query_masks needs a mask token, .* set query_masks = 0"):
        LateInteraction(Tower.load(tower), query_masks=8)


def test_more_tokens_than_the_backbone_has_positions_for_are_refused(tower: Path) -> None:
    with pytest.raises(WrongUse, match=r"texts of 33 tokens are asked for, but 'toy' has positions for 32"):
        CrossEncoder.over(Tower.load(tower), name="x", pooling="cls", query_tokens=9, document_tokens=24)


def test_what_is_saved_scores_as_before(tower: Path, tmp_path: Path) -> None:
    model, late = cross_encoder(tower, seed=5), late_interaction(tower, 6)
    model.save(tmp_path)
    late.save(tmp_path)
    ids, lengths = PairTable(model.tower.tokens, QUERIES, DOCUMENTS).pick(np.array([0, 1]), np.array([0, 1]))
    packed = Packed.of(ids, Budget(tokens=99))
    again, late_again = CrossEncoder.load(tmp_path).eval(), LateInteraction.load(tmp_path).eval()
    for loaded, saved in ((again, model), (late_again, late)):
        torch.testing.assert_close(loaded.state_dict(), saved.state_dict(), atol=0, rtol=0)
    with torch.no_grad():
        torch.testing.assert_close(again(packed, lengths, "fp32"), model(packed, lengths, "fp32"), atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(late_again(packed, "fp32")[0], late(packed, "fp32")[0], atol=1e-6, rtol=1e-6)
    (tmp_path / "late_interaction.json").write_text("{")
    with pytest.raises(Stop, match=r"late_interaction.json is damaged"):
        LateInteraction.load(tmp_path)


@torch.no_grad()
def test_a_head_by_scale_leaves_the_start_what_it_is_and_shrinks_its_scores(tower: Path) -> None:
    plain = late_interaction(tower)
    options = {"name": "x", "query_tokens": 8, "document_tokens": 8, "query_masks": 0}
    scaled = LateInteraction.over(Tower.load(tower), dim=None, scale=0.2, **options).eval()  # type: ignore[arg-type]
    ids = plain.documents(DOCUMENTS).pick(np.arange(4))
    packed = Packed.of(ids, Budget(tokens=99))
    torch.testing.assert_close(scaled(packed, "fp32")[0], 0.2 * plain(packed, "fp32")[0])


def test_scoring_goes_on_behind_what_was_scored_and_knows_pairs_and_teacher(tower: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        cross_encoder(tower, seed).save(tmp_path / f"teacher-{seed}")
    place = toy.toy_place(tmp_path)
    pairs = Pairs(queries=QUERIES, documents=DOCUMENTS, query=np.array([0, 1, 2, 2]), document=np.array([1, 0, 3, 2]))
    whole = scores_of(pairs, tmp_path / "teacher-0", place, precision="fp32")
    (kept,) = place.folder.glob("checkpoints/scores-*.npy")
    killed = whole.copy()
    killed[0], killed[2] = 42.0, np.nan
    np.save(kept, killed)
    again = scores_of(pairs, tmp_path / "teacher-0", place, precision="fp32")
    assert again[0] == 42.0  # was there: not scored again
    np.testing.assert_allclose(again[1:], whole[1:], rtol=1e-6)
    others = scores_of(pairs, tmp_path / "teacher-1", place, precision="fp32")
    assert not np.allclose(others, whole)
    turned = Pairs(queries=QUERIES, documents=DOCUMENTS, query=pairs.query[::-1], document=pairs.document[::-1])
    np.testing.assert_allclose(
        scores_of(turned, tmp_path / "teacher-0", place, precision="fp32"), whole[::-1], rtol=1e-5
    )
