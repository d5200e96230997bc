"""Losses: pure functions of vectors.

B queries of a batch, N ≥ B documents (document i belongs to query i, the rest are hard negatives), D components.
Shape suffixes say it: q_BD, d_ND, scores_BN. Everything is computed in the precision of what comes in.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F


def info_nce(
    q_BD: Tensor,
    d_ND: Tensor,
    *,
    temperature: float,
    known_BN: Tensor | None = None,
    margin: float | None = None,
    bidirectional: bool = False,
) -> Tensor:
    """Cross entropy of each query's own document among all documents of the batch, hard negatives of all included.

    `known_BN` marks further positives of a query, which are no negatives of it; `margin` drops negatives that score
    above the query's own document by more. `bidirectional` adds each document's own query among the batch's queries.
    """
    scores_BN = q_BD @ d_ND.T
    own_B = torch.arange(len(q_BD), device=q_BD.device)
    scores_BN = _without_false_negatives(scores_BN, known_BN, margin) / temperature
    loss = F.cross_entropy(scores_BN, own_B)
    if bidirectional:
        # A pair that is no negative in one direction is none in the other; hard negatives have no query to find.
        loss = loss + F.cross_entropy(scores_BN[:, : len(q_BD)].T, own_B)
    return loss


def _without_false_negatives(scores_BN: Tensor, known_BN: Tensor | None, margin: float | None) -> Tensor:
    """The scores with −∞ where a document must not count as a negative; a query's own document always counts."""
    drop_BN = torch.zeros_like(scores_BN, dtype=torch.bool)
    if known_BN is not None:
        drop_BN |= known_BN
    if margin is not None:
        drop_BN |= scores_BN.detach() > scores_BN.detach().diagonal()[:, None] + margin
    return scores_BN.masked_fill(drop_BN.fill_diagonal_(False), float("-inf"))


def cut(vectors_BD: Tensor, size: int) -> Tensor:
    """The first components, as vectors of length 1."""
    return F.normalize(vectors_BD[:, :size], dim=-1)


def alignment(
    student_BD: Tensor,
    teacher_BD: Tensor,
    *,
    w_cos: float,
    w_mse: float,
    mse_on: Literal["raw", "normalised"],
    mse_reduction: Literal["sum", "mean"],
) -> Tensor:
    """`w_cos` · (1 − cosine) + `w_mse` · squared distance, the mean over the batch. Both come before normalisation."""
    student_unit_BD, teacher_unit_BD = F.normalize(student_BD, dim=-1), F.normalize(teacher_BD, dim=-1)
    loss_B = w_cos * (1 - (student_unit_BD * teacher_unit_BD).sum(dim=-1))
    if w_mse:
        raw = mse_on == "raw"
        gap_BD = student_BD - teacher_BD if raw else student_unit_BD - teacher_unit_BD
        square_BD = gap_BD.square()
        loss_B = loss_B + w_mse * (square_BD.sum(dim=-1) if mse_reduction == "sum" else square_BD.mean(dim=-1))
    return loss_B.mean()


def token_gap(student_BLD: Tensor, teacher_BLD: Tensor, mask_BL: Tensor) -> Tensor:
    """1 − cosine between two towers' hidden states, the mean over each text's own tokens: one number a text."""
    gap_BL = 1 - F.cosine_similarity(student_BLD, teacher_BLD, dim=-1)
    return (gap_BL * mask_BL).sum(dim=1) / mask_BL.sum(dim=1)
