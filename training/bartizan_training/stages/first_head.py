"""The head that a student of another size begins with: the linear map that brings it nearest to its teacher.

From a random head, a few hundred steps teach a student little but where all texts lie on average. The best linear map
is known at once, by least squares over some of the texts. x: the student's pooled states, y: the teacher's vectors.
"""

import numpy as np
import torch
from torch import Tensor, nn

from bartizan_encoders.pooling import POOLINGS
from bartizan_encoders.tower import Tower
from bartizan_training.data.packing import Budget, Packed
from bartizan_training.data.token_table import TokenTable
from bartizan_training.embedding import by_piece
from bartizan_training.frozen import FrozenVectors

TEXTS = 4096
"""Enough for some hundred columns; more would say the same again."""
_BLOCK = 256
_RIDGE = 1e-3
"""Of the mean square of a column: so that directions that the texts hardly use stay small."""


@torch.no_grad()
def lay(student: Tower, tokens: TokenTable, teacher: FrozenVectors, budget: Budget, device: torch.device) -> None:
    """Give the student's linear head the weights that fit best, over texts drawn evenly from all."""
    head = student.head
    assert isinstance(head, nn.Linear)
    chosen = np.unique(np.linspace(0, len(tokens) - 1, min(len(tokens), TEXTS)).astype(np.int64))
    student.to(device).eval()
    pool = POOLINGS[student.spec.pooling]

    def of_piece(ids: Tensor, mask: Tensor) -> Tensor:
        return pool(student.hidden(ids, mask).float(), mask)

    parts, targets = [], []
    for start in range(0, len(chosen), _BLOCK):
        some = chosen[start : start + _BLOCK]
        packed = Packed.of(tokens.pick(some), budget).to(device)
        parts.append(torch.cat(by_piece(packed, of_piece))[packed.back].double().cpu())
        targets.append(teacher.pick(some).double())
    x_ND, y_NV = torch.cat(parts), torch.cat(targets)
    if student.spec.normalise:
        y_NV = nn.functional.normalize(y_NV, dim=1)
    weight_VD, bias_V = fitted(x_ND, y_NV)
    head.weight.copy_(weight_VD)
    head.bias.copy_(bias_V)


def fitted(x_ND: Tensor, y_NV: Tensor) -> tuple[Tensor, Tensor]:
    """Weight and bias of the least squares, with a small ridge on the weight alone."""
    x_mean_D, y_mean_V = x_ND.mean(dim=0), y_NV.mean(dim=0)
    centred_ND = x_ND - x_mean_D
    square_DD = centred_ND.T @ centred_ND
    ridge = _RIDGE * square_DD.diagonal().mean() * torch.eye(len(square_DD), dtype=square_DD.dtype)
    weight_DV = torch.linalg.solve(square_DD + ridge, centred_ND.T @ (y_NV - y_mean_V))
    return weight_DV.T, y_mean_V - x_mean_D @ weight_DV
