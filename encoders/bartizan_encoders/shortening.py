"""Towers that give only the first components of another's vectors: what Matryoshka training makes useful."""

import torch
from torch import nn

from bartizan_connector.base.errors import WrongUse
from bartizan_encoders.design import Design
from bartizan_encoders.tower import Tower


@torch.no_grad()
def shortened(tower: Tower, dim: int) -> Tower:
    """The tower with vectors of `dim` components, normalised anew where it normalises.

    Its space is the first `dim` components of the tower's space: towers of one space, cut alike, are of one again.
    """
    spec = tower.spec
    if spec.kind != "dense":
        raise WrongUse(
            f"tower '{spec.name}' is sparse: its terms have no order to be cut by; set top_terms to keep fewer"
        )
    if not 1 <= dim < spec.dim:
        raise WrongUse(f"expected fewer than the {spec.dim} dimensions of tower '{spec.name}', got {dim}")
    wide = tower.head
    assert wide is None or isinstance(wide, nn.Linear)  # the tower is dense
    if wide is None:
        head = nn.Linear(spec.dim, dim, bias=False)
        head.weight.copy_(torch.eye(dim, spec.dim))
    else:
        head = nn.Linear(wide.in_features, dim, bias=wide.bias is not None)
        head.weight.copy_(wide.weight[:dim])
        if wide.bias is not None:
            head.bias.copy_(wide.bias[:dim])
    cut = Tower.assemble(
        tower.backbone,
        head,
        architecture=tower.architecture,
        tokenizer=tower.tokens.text,
        design=Design.of(spec, name=f"{spec.name}-{dim}"),
    )
    cut.spec = cut.spec.model_copy(update={"space": f"{spec.space_id}-{dim}"})
    return cut
