"""What a language model sees of a text, and what it is to say: spans cut out (T5), or single tokens masked (BERT)."""

from collections.abc import Sequence

import numpy as np

from bartizan_training.data.ragged import Indices

IGNORED = -100
"""The target of a token that nothing is asked about."""


def holes(length: int, share: float, mean_span: float) -> tuple[int, int]:
    """How many tokens are cut out of a text of that length, and in how many spans. As published: at least one token
    is cut and one is left, and there are no more spans than either."""
    cut = min(max(round(length * share), 1), length - 1)
    spans = max(round(cut / mean_span), 1)
    return cut, min(spans, cut, length - cut)


def cut_spans(
    tokens: Indices, *, share: float, mean_span: float, sentinels: Sequence[int], end: int, random: np.random.Generator
) -> tuple[Indices, Indices]:
    """Input and target of T5's span corruption. A text is kept and cut in turns, and begins with what is kept.

    input:   kept <0> kept <1> … end          target:   <0> cut <1> cut … end
    """
    cut, spans = holes(len(tokens), share, mean_span)
    kept_lengths = _parts(len(tokens) - cut, spans, random)
    cut_lengths = _parts(cut, spans, random)
    lengths = np.stack([kept_lengths, cut_lengths], axis=1).reshape(-1)
    pieces = np.split(tokens, np.cumsum(lengths)[:-1])
    names = [np.array([sentinel]) for sentinel in sentinels[:spans]]
    seen = [part for kept, name in zip(pieces[::2], names, strict=True) for part in (kept, name)]
    said = [part for name, gone in zip(names, pieces[1::2], strict=True) for part in (name, gone)]
    last = np.array([end])
    return np.concatenate([*seen, last]), np.concatenate([*said, last])


def _parts(items: int, parts: int, random: np.random.Generator) -> Indices:
    """Items in so many parts of at least one, each division as likely as any other."""
    borders = np.sort(random.choice(items - 1, size=parts - 1, replace=False)) + 1
    return np.diff(np.concatenate([[0], borders, [items]])).astype(np.int64)


def mask_some(
    tokens: Indices, *, share: float, able: Indices, mask: int, vocabulary: int, random: np.random.Generator
) -> tuple[Indices, Indices]:
    """Input and targets of BERT's masking: of so large a share of the places `able`, 8 in 10 become the mask, 1 in 10
    a random token, and 1 in 10 stays; the targets of all of them are their tokens."""
    chosen = random.choice(able, size=max(1, round(share * len(able))), replace=False)
    seen, said = tokens.copy(), np.full_like(tokens, IGNORED)
    said[chosen] = tokens[chosen]
    lot = random.random(len(chosen))
    seen[chosen[lot < 0.8]] = mask
    other = chosen[(lot >= 0.8) & (lot < 0.9)]
    seen[other] = random.integers(vocabulary, size=len(other))
    return seen, said
