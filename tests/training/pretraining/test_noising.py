"""What models are asked, against the published algorithm written out in loops."""

from collections import Counter

import numpy as np
import pytest

from bartizan_training.pretraining.noising import IGNORED, cut_spans, holes, mask_some

SENTINELS = tuple(range(999, 899, -1))
END = 1


def corrupted(length: int, seed: int, share: float = 0.15, mean_span: float = 3.0) -> tuple[list[int], list[int]]:
    tokens = np.arange(100, 100 + length)
    seen, said = cut_spans(
        tokens, share=share, mean_span=mean_span, sentinels=SENTINELS, end=END, random=np.random.default_rng(seed)
    )
    return seen.tolist(), said.tolist()


def filled(seen: list[int], said: list[int]) -> list[int]:
    """The text that target and input make together: each hole is looked up by its name."""
    spans: dict[int, list[int]] = {}
    for token in said[:-1]:
        if token in SENTINELS:
            spans[token] = []
        else:
            spans[list(spans)[-1]].append(token)
    text: list[int] = []
    for token in seen[:-1]:
        text.extend(spans.pop(token) if token in SENTINELS else [token])
    assert not spans
    return text


@pytest.mark.parametrize(("length", "cut", "spans"), [(512, 77, 26), (128, 19, 6), (20, 3, 1), (4, 1, 1), (2, 1, 1)])
def test_as_much_is_cut_out_as_published(length: int, cut: int, spans: int) -> None:
    assert holes(length, 0.15, 3.0) == (cut, spans)
    for seed in range(20):
        seen, said = corrupted(length, seed)
        assert len(seen) == length - cut + spans + 1
        assert len(said) == cut + spans + 1


@pytest.mark.parametrize(
    ("length", "share", "mean_span"), [(128, 0.15, 3.0), (40, 0.5, 1.0), (9, 0.9, 2.0), (2, 0.5, 3)]
)
def test_holes_and_what_was_in_them_make_the_text_again(length: int, share: float, mean_span: float) -> None:
    for seed in range(50):
        seen, said = corrupted(length, seed, share, mean_span)
        assert (seen[-1], said[-1]) == (END, END)
        assert filled(seen, said) == list(range(100, 100 + length))
        names = [token for token in seen if token in SENTINELS]
        assert names == list(SENTINELS[: len(names)]) == [token for token in said if token in SENTINELS]
        assert seen[0] not in SENTINELS  # a text begins with what is kept
        assert seen[-2] in SENTINELS  # and ends with what is cut


def test_every_division_into_spans_comes_as_often_as_any_other() -> None:
    lengths: Counter[tuple[int, ...]] = Counter()
    for seed in range(3000):
        _, said = corrupted(20, seed, share=0.3, mean_span=2.0)
        places = [place for place, token in enumerate([*said[:-1], SENTINELS[0]]) if token in SENTINELS]
        lengths[tuple(np.diff(places) - 1)] += 1
    assert len(lengths) == 10  # six tokens in three spans of one or more: 5 over 2
    assert min(lengths.values()) > 0.75 * 300
    assert max(lengths.values()) < 1.25 * 300


def test_a_tenth_of_the_masked_tokens_stays_and_a_tenth_becomes_another() -> None:
    tokens, able = np.arange(1000, 3000), np.arange(5, 2000)
    fates: Counter[str] = Counter()
    for seed in range(20):
        seen, said = mask_some(
            tokens, share=0.15, able=able, mask=4, vocabulary=900, random=np.random.default_rng(seed)
        )
        chosen = said != IGNORED
        assert chosen.sum() == round(0.15 * len(able))
        assert not chosen[:5].any()
        np.testing.assert_array_equal(said[chosen], tokens[chosen])
        np.testing.assert_array_equal(seen[~chosen], tokens[~chosen])
        pairs = zip(seen[chosen], tokens[chosen], strict=True)
        fates.update("mask" if now == 4 else "kept" if now == before else "other" for now, before in pairs)
    total = sum(fates.values())
    assert [round(fates[fate] / total, 2) for fate in ("mask", "kept", "other")] == pytest.approx(
        [0.8, 0.1, 0.1], abs=0.02
    )
