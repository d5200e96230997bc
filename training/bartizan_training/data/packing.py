"""Texts tokenised once, and packed so that little of a batch is padding.

Sorting a batch by length and cutting it into pieces that are padded to their own longest text takes the padding of a
batch of passages from about 2.1 times the tokens to about 1.2 times.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bartizan_connector.encode.batches import by_length, padded
from bartizan_connector.space.spec import Role
from bartizan_connector.space.tokens import Tokenized, Tokens
from bartizan_training.data.samplers import Indices

_BLOCK = 4096


class TokenTable:
    """The token ids of many texts, four bytes a token."""

    def __init__(self, tokens: Tokens, role: Role, texts: Sequence[str]) -> None:
        pieces: list[npt.NDArray[np.int32]] = [np.zeros(0, dtype=np.int32)]
        ends = [0]
        for start in range(0, len(texts), _BLOCK):
            for text in tokens.encode(texts[start : start + _BLOCK], role):
                pieces.append(np.array(text.ids, dtype=np.int32))
                ends.append(ends[-1] + len(text.ids))
        self._ids = np.concatenate(pieces)
        self._ends = np.array(ends, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def pick(self, indices: Indices) -> list[Tokenized]:
        """The texts of these numbers."""
        picked = (self._ids[self._ends[i] : self._ends[i + 1]].tolist() for i in indices)
        return [Tokenized(ids, len(ids)) for ids in picked]


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """Texts in pieces of like length, and the way back to their order."""

    pieces: tuple[tuple[Tensor, Tensor], ...]
    """`input_ids` and `attention_mask` of each piece."""
    back: Tensor
    """Where each text went."""
    tokens: int
    """Without padding."""

    @classmethod
    def of(cls, texts: Sequence[Tokenized], budget: int) -> Self:
        """Pack the texts into pieces of at most `budget` tokens with padding."""
        groups = list(by_length(texts, budget))
        went = np.argsort(np.concatenate(groups))
        return cls(
            pieces=tuple(_tensors([texts[position] for position in group]) for group in groups),
            back=torch.from_numpy(went),
            tokens=sum(len(text.ids) for text in texts),
        )

    def to(self, device: torch.device) -> Self:
        """The same on that device."""
        pieces = tuple(
            (ids.to(device, non_blocking=True), mask.to(device, non_blocking=True)) for ids, mask in self.pieces
        )
        return type(self)(pieces, self.back.to(device, non_blocking=True), self.tokens)


def _tensors(texts: Sequence[Tokenized]) -> tuple[Tensor, Tensor]:
    ids, mask = padded(texts)
    return torch.from_numpy(ids), torch.from_numpy(mask)
