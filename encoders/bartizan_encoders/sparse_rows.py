"""From a piece of a batch [B, V] in torch to sparse vectors: only what is not zero leaves the device."""

import numpy as np
import torch
from torch import Tensor

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.space.vectors import SparseVector


def sparse_rows(values_BV: Tensor, *, top_k: int | None = None) -> tuple[SparseVector, ...]:
    """One sparse vector a row; `top_k` keeps the heaviest terms of each, of equal ones those with the lower index."""
    if top_k is not None and top_k < 1:
        raise WrongUse(f"top_k must be 1 or more, got {top_k}")
    texts, terms = values_BV.nonzero(as_tuple=True)  # in order of text, then of term
    weights = values_BV[texts, terms].to(torch.float32).cpu().numpy()
    indices = terms.to(torch.int32).cpu().numpy()
    counts = torch.bincount(texts, minlength=values_BV.shape[0]).cpu().numpy()
    ends = counts.cumsum()
    rows = [SparseVector(indices[end - n : end], weights[end - n : end]) for n, end in zip(counts, ends, strict=True)]
    return tuple(rows if top_k is None else (_heaviest(row, top_k) for row in rows))


def _heaviest(row: SparseVector, top_k: int) -> SparseVector:
    if len(row.indices) <= top_k:
        return row
    kept = np.sort(np.argsort(-row.weights, kind="stable")[:top_k])
    return SparseVector(row.indices[kept], row.weights[kept])
