"""Margin losses: a student learns by how much more a teacher likes one document than another, never a label.

B queries, each with its own positive and negative document; D components. A suffix _B is one score a query, _BB holds
every query against every other query's document. All is computed in the precision of what comes in. A loss of margins
does not change when a constant is added to all of a query's scores, of the teacher's or of the student's.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class BatchScores:
    """Of every query of a batch and every document of it."""

    positive_BB: Tensor
    """Query i and the positive of query j."""
    negative_BB: Tensor
    """Query i and the negative of query j."""

    @classmethod
    def of(cls, q_BD: Tensor, positive_BD: Tensor, negative_BD: Tensor) -> "BatchScores":
        """Dot products."""
        return cls(positive_BB=q_BD @ positive_BD.T, negative_BB=q_BD @ negative_BD.T)

    @property
    def own_positive_B(self) -> Tensor:
        """Each query and its own positive."""
        return self.positive_BB.diagonal()

    @property
    def own_negative_B(self) -> Tensor:
        """Each query and its own negative."""
        return self.negative_BB.diagonal()

    def scaled(self, factor: float) -> "BatchScores":
        """All scores, multiplied."""
        return BatchScores(positive_BB=self.positive_BB * factor, negative_BB=self.negative_BB * factor)


def margin_mse(positive_B: Tensor, negative_B: Tensor, margin_B: Tensor) -> Tensor:
    """Squared difference between the student's margin and the teacher's, the mean over the batch."""
    return (positive_B - negative_B - margin_B).square().mean()


def in_batch_margin_mse(student: BatchScores, teacher: BatchScores) -> Tensor:
    """The same over each query's own positive against every other query's documents.

    Half for the others' positives, half for the others' negatives, each the mean over the B (B − 1) pairs off the
    diagonal: a query's own two documents are the pairwise loss's. The paper prints 1 / 2|Q| in front of the two sums;
    what its authors ran, and what their weight of .75 is made for, is this mean.
    """
    gap_B = student.own_positive_B - teacher.own_positive_B
    size = len(gap_B)
    if size < 2:
        return student.positive_BB.sum() * 0.0  # no other query: nothing to learn, and a gradient of zero
    loss = torch.zeros((), dtype=gap_B.dtype, device=gap_B.device)
    for ours_BB, theirs_BB in (
        (student.positive_BB, teacher.positive_BB),
        (student.negative_BB, teacher.negative_BB),
    ):
        error_BB = gap_B[:, None] - (ours_BB - theirs_BB)
        others_BB = ~torch.eye(size, dtype=torch.bool, device=error_BB.device)
        loss = loss + error_BB[others_BB].square().mean()
    return loss / 2


def rank_net(positive_B: Tensor, negative_B: Tensor) -> Tensor:
    """How surely the positive is above the negative, as a logistic loss, the mean over the batch."""
    return F.softplus(negative_B - positive_B).mean()
