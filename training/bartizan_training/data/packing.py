"""Tokenised texts packed so that little of a batch is padding.

Sorting a batch by length and cutting it into pieces that are padded to their own longest text takes the padding of a
batch of passages from about 2.1 times the tokens to about 1.2 times. Everything is done on flat arrays: no Python
object stands for a token.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bartizan_connector.space.tokens import PADDING_ID
from bartizan_training.data.ragged import Indices, joined_ranges


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How much of a batch goes through a tower at once."""

    tokens: int
    """Padding included; one text may have more."""
    texts: int | None = None
    """None: as many as there are tokens for."""
    anew: bool = False
    """Whether a piece leaves nothing but its vectors, and is encoded again when their gradient is there (GradCache)."""

    def most(self, longest: int) -> int:
        """Texts of one piece whose longest has so many tokens."""
        return max(1, min(self.tokens // longest, self.texts or self.tokens))


Ids = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class TokenIds:
    """The token ids of some texts, one text after the other."""

    flat: Ids
    lengths: Indices

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[Ids]:
        return iter(np.split(self.flat, np.cumsum(self.lengths)[:-1]) if len(self) else ())

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """The texts of all parts in order."""
        return cls(
            np.concatenate([part.flat for part in parts]),
            np.concatenate([part.lengths for part in parts]),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """Texts in pieces of like length, and the way back to their order."""

    pieces: tuple[tuple[Tensor, Tensor], ...]
    """`input_ids` and `attention_mask` of each piece."""
    back: Tensor
    """Where each text went."""
    tokens: int
    """Without padding."""
    anew: bool = False
    """As the budget says."""

    @classmethod
    def of(cls, texts: TokenIds, budget: Budget) -> Self:
        """Pack the texts into pieces within the budget; the longest come first, so that memory peaks at once."""
        order = np.argsort(-texts.lengths, kind="stable")
        starts = np.cumsum(texts.lengths) - texts.lengths
        pieces = []
        begin = 0
        while begin < len(order):
            longest = max(1, int(texts.lengths[order[begin]]))
            piece = order[begin : begin + budget.most(longest)]
            pieces.append(_padded(texts.flat, starts[piece], texts.lengths[piece], longest))
            begin += len(piece)
        back = torch.from_numpy(np.argsort(order))
        return cls(pieces=tuple(pieces), back=back, tokens=len(texts.flat), anew=budget.anew)

    def to(self, device: torch.device) -> Self:
        """The same on that device."""
        pieces = tuple(
            (ids.to(device, non_blocking=True), mask.to(device, non_blocking=True)) for ids, mask in self.pieces
        )
        return replace(self, pieces=pieces, back=self.back.to(device, non_blocking=True))

    def pinned(self) -> Self:
        """The same in pinned memory."""
        pieces = tuple((ids.pin_memory(), mask.pin_memory()) for ids, mask in self.pieces)
        return replace(self, pieces=pieces, back=self.back.pin_memory())


def _padded(flat: Ids, starts: Indices, lengths: Indices, width: int) -> tuple[Tensor, Tensor]:
    own = np.arange(width) < lengths[:, None]
    ids = np.full(own.shape, PADDING_ID, dtype=np.int64)
    ids[own] = flat[joined_ranges(starts, lengths)]
    return torch.from_numpy(ids), torch.from_numpy(own.astype(np.int64))
