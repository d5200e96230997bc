"""The cross-encoder: query and document go through one backbone as one text, and a linear head gives their score."""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from bartizan_connector.space.spec import Role
from bartizan_connector.space.tokens import Tokens
from bartizan_encoders.pooling import Pooling
from bartizan_encoders.tower import Tower
from bartizan_training.data.packing import Packed, TokenIds
from bartizan_training.data.ragged import Indices, joined_ranges
from bartizan_training.data.token_table import Tabling, TokenTable
from bartizan_training.embedding import arithmetic, by_piece
from bartizan_training.towers import redesigned

_FOLDER = "cross-encoder"


class CrossEncoder(nn.Module):
    """A tower of one dimension: what it gives for query and document together is their score."""

    def __init__(self, tower: Tower) -> None:
        super().__init__()
        self.tower = tower
        self._two_segments = getattr(tower.backbone.config, "type_vocab_size", 0) >= 2

    @classmethod
    def over(cls, tower: Tower, *, name: str, pooling: Pooling, query_tokens: int, document_tokens: int) -> Self:
        """A new one over the backbone of a tower; its head is random (seed torch first)."""
        head = nn.Linear(tower.backbone.config.hidden_size, 1)
        lengths: dict[Role, int] = {"query": query_tokens, "document": document_tokens}
        together = query_tokens + document_tokens
        return cls(
            redesigned(tower, head, name=name, pooling=pooling, similarity="dot", lengths=lengths, together=together)
        )

    @classmethod
    def load(cls, folder: Path) -> Self:
        """What `save` wrote."""
        return cls(Tower.load(folder / _FOLDER))

    def save(self, folder: Path) -> None:
        """Write into an artefact's folder."""
        self.tower.save(folder / _FOLDER)

    def forward(self, packed: Packed, query_lengths: Tensor, precision: str) -> Tensor:
        """The score [B] of each pair, in the pairs' order. `query_lengths` says where each document begins: a backbone
        that has two segments is told so."""
        lengths = torch.split(query_lengths[torch.argsort(packed.back)], [len(ids) for ids, _ in packed.pieces])
        with arithmetic(packed, precision):
            scores = by_piece(packed, self._scores, lengths)
        return torch.cat(scores).float()[packed.back]

    def _scores(self, ids: Tensor, mask: Tensor, lengths: Tensor) -> Tensor:
        segments = {}
        if self._two_segments:
            places = torch.arange(ids.shape[1], device=ids.device)
            segments = {"token_type_ids": ((places >= lengths[:, None]) & (mask > 0)).long()}
        hidden_BLD = self.tower.backbone(input_ids=ids, attention_mask=mask, **segments).last_hidden_state
        return self.tower.pooled(hidden_BLD, mask)[:, 0]


class PairTable:
    """The token ids of queries and documents, joined pair by pair: `[CLS] query [SEP] document [SEP]` for a BERT."""

    def __init__(
        self, tokens: Tokens, queries: Sequence[str], documents: Sequence[str], make: Tabling = TokenTable
    ) -> None:
        self._queries = make(tokens, "query", queries)
        self._documents = make(tokens, "document", documents)
        self._opening = opening(tokens)

    def pick(self, queries: Indices, documents: Indices) -> tuple[TokenIds, Tensor]:
        """The pairs of these numbers, and how many tokens of each are the query's."""
        first, second = self._queries.pick(queries), self._documents.pick(documents)
        both = TokenIds.joined([first, second])
        starts = np.cumsum(both.lengths) - both.lengths
        begins = np.stack([starts[: len(first)], starts[len(first) :] + self._opening], axis=1).reshape(-1)
        lengths = np.stack([first.lengths, second.lengths - self._opening], axis=1)
        flat = both.flat[joined_ranges(begins, lengths.reshape(-1))]
        return TokenIds(flat, lengths.sum(axis=1)), torch.from_numpy(first.lengths)

    @property
    def tokens(self) -> int:
        """Of all texts, each counted once."""
        return self._queries.tokens + self._documents.tokens


def opening(tokens: Tokens) -> int:
    """How many special tokens stand before a text: the second text of a pair goes without them."""
    bare = tokens.serving(tokens.roles, "none").encode(["a"], "document")[0].ids
    whole = tokens.encode(["a"], "document")[0].ids
    return next(place for place in range(len(whole)) if whole[place : place + len(bare)] == bare)
