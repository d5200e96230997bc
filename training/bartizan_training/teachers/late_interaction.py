"""The late-interaction teacher (ColBERT): each token of a query looks for its nearest among a document's tokens."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F

from bartizan_connector.base.errors import Stop, WrongUse
from bartizan_connector.space.spec import Role
from bartizan_encoders.tower import Tower
from bartizan_training.data.packing import Ids, Packed, TokenIds
from bartizan_training.data.ragged import Indices
from bartizan_training.data.token_table import Tabling, TokenTable
from bartizan_training.embedding import arithmetic, by_piece
from bartizan_training.towers import redesigned

_FOLDER, _FACTS = "late-interaction", "late_interaction.json"
_MASKS = ("[MASK]", "<mask>")
_MOST_AT_ONCE = 1 << 26
"""Similarities of tokens that are held at once, a quarter of a GiB: documents are taken in blocks."""


class LateInteraction(nn.Module):
    """A tower that is used token by token: linear head if any, no pooling, no normalisation."""

    def __init__(self, tower: Tower, query_masks: int) -> None:
        super().__init__()
        self.tower, self.query_masks = tower, query_masks
        self._mask_id = _mask_id(tower) if query_masks else 0

    @classmethod
    def over(
        cls,
        tower: Tower,
        *,
        name: str,
        dim: int | None,
        query_tokens: int,
        document_tokens: int,
        query_masks: int,
        scale: float | None = None,
    ) -> Self:
        """A new one over the backbone of a tower; a head to `dim` is random (seed torch first), one of a `scale` begins
        as so many times the identity."""
        width = tower.backbone.config.hidden_size
        head = nn.Linear(width, dim) if dim else None
        if scale is not None:
            head = nn.Linear(width, width, bias=False)
            with torch.no_grad():
                head.weight.copy_(scale * torch.eye(width))
        lengths: dict[Role, int] = {"query": query_tokens, "document": document_tokens}
        together = max(query_tokens + query_masks, document_tokens)
        shaped = redesigned(
            tower, head, name=name, pooling="mean", similarity="dot", lengths=lengths, together=together
        )
        return cls(shaped, query_masks)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """What `save` wrote."""
        path = folder / _FACTS
        try:
            masks = int(json.loads(path.read_text(encoding="utf-8"))["query_masks"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Stop(f"{path} is damaged: {error}; train again into another --out") from error
        return cls(Tower.load(folder / _FOLDER), masks)

    def save(self, folder: Path) -> None:
        """Write into an artefact's folder."""
        self.tower.save(folder / _FOLDER)
        (folder / _FACTS).write_text(json.dumps({"query_masks": self.query_masks}) + "\n", encoding="utf-8")

    def forward(self, packed: Packed, precision: str) -> tuple[Tensor, Tensor]:
        """The vectors [B, L, D] of each text's tokens, in the texts' order, and the mask [B, L] of what is padding."""
        longest = max(ids.shape[1] for ids, _ in packed.pieces)
        vectors, masks = [], []
        with arithmetic(packed, precision):
            for hidden_BLD, (ids, mask) in zip(by_piece(packed, self._of_tokens), packed.pieces, strict=True):
                room = longest - ids.shape[1]
                vectors.append(F.pad(hidden_BLD.float(), (0, 0, 0, room)))
                masks.append(F.pad(mask, (0, room)))
        return torch.cat(vectors)[packed.back], torch.cat(masks)[packed.back]

    def _of_tokens(self, ids: Tensor, mask: Tensor) -> Tensor:
        hidden_BLD = self.tower.hidden(ids, mask).float()
        return self.tower.head(hidden_BLD) if self.tower.head is not None else hidden_BLD

    def queries(self, texts: Sequence[str], make: Tabling = TokenTable) -> "QueryTable":
        """The token ids of queries."""
        return QueryTable(self, make(self.tower.tokens, "query", texts))

    def documents(self, texts: Sequence[str], make: Tabling = TokenTable) -> TokenTable:
        """The token ids of documents."""
        return make(self.tower.tokens, "document", texts)

    def with_masks(self, texts: TokenIds) -> TokenIds:
        """Queries with so many mask tokens behind them: the model puts there what it would also look for."""
        if not self.query_masks:
            return texts
        lengths = texts.lengths + self.query_masks
        flat: Ids = np.full(int(lengths.sum()), self._mask_id, dtype=np.int32)
        own = np.arange(len(texts.flat)) + np.repeat(np.arange(len(texts)) * self.query_masks, texts.lengths)
        flat[own] = texts.flat
        return TokenIds(flat, lengths)


class QueryTable:
    """The token ids of queries, with their mask tokens."""

    def __init__(self, model: LateInteraction, table: TokenTable) -> None:
        self._model, self._table = model, table

    def pick(self, indices: Indices) -> TokenIds:
        """The queries of these numbers."""
        return self._model.with_masks(self._table.pick(indices))


def max_sim(q_BLD: Tensor, q_mask_BL: Tensor, d_NMD: Tensor, d_mask_NM: Tensor) -> Tensor:
    """The score [B, N] of every query and every document: for each token of the query the greatest dot product with a
    token of the document, summed."""
    queries, tokens, _ = q_BLD.shape
    block = max(1, _MOST_AT_ONCE // (queries * tokens * d_NMD.shape[1]))
    pieces = zip(torch.split(d_NMD, block), torch.split(d_mask_NM, block), strict=True)
    found = []
    for some_NMD, mask_NM in pieces:
        near_BNLM = torch.einsum("bld,nmd->bnlm", q_BLD, some_NMD)
        best_BNL = near_BNLM.masked_fill(mask_NM[None, :, None, :] == 0, float("-inf")).amax(dim=-1)
        found.append(best_BNL.masked_fill(q_mask_BL[:, None, :] == 0, 0.0).sum(dim=-1))
    return torch.cat(found, dim=1)


def max_sim_of_pairs(q_BLD: Tensor, q_mask_BL: Tensor, d_BMD: Tensor, d_mask_BM: Tensor) -> Tensor:
    """The score [B] of each query and its own document."""
    near_BLM = torch.einsum("bld,bmd->blm", q_BLD, d_BMD)
    best_BL = near_BLM.masked_fill(d_mask_BM[:, None, :] == 0, float("-inf")).amax(dim=-1)
    return best_BL.masked_fill(q_mask_BL == 0, 0.0).sum(dim=-1)


def _mask_id(tower: Tower) -> int:
    tokenizer = Tokenizer.from_str(tower.tokens.text)
    for name in _MASKS:
        if (id := tokenizer.token_to_id(name)) is not None:
            return int(id)
    raise WrongUse(
        f"query_masks needs a mask token, and the tokenizer of '{tower.spec.name}' has none of {', '.join(_MASKS)}: "
        "set query_masks = 0"
    )
