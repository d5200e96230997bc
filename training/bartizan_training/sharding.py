"""Weights, gradients and optimiser state shared out over the processes (FSDP): each holds its part, and the whole of
one layer while it computes that layer.

Done with torch's own `fully_shard`, so that what two processes of a test do on a CPU is what eight GPUs do. The batch
is shared as without it, and the gradient is the same. What does not change in training (a teacher, frozen vectors) is
not shared out: each process holds all of it.
"""

from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor, distributed, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from transformers.modeling_layers import GradientCheckpointingLayer

from bartizan_connector.base.errors import WrongUse


def wanted(accelerator: Accelerator, *, shard: bool) -> bool:
    """Whether to share out: as the command says, or as accelerate was launched."""
    if not shard and accelerator.distributed_type != DistributedType.FSDP:
        return False
    if accelerator.num_processes == 1:
        raise WrongUse(
            "there is one process, so that nothing can be shared out: start several with "
            "`accelerate launch --num_processes N -m bartizan_connector train …`, or leave --shard out"
        )
    return True


def share_out(stage: nn.Module, accelerator: Accelerator) -> nn.Module:
    """The stage with each parameter cut along its rows; an optimiser is made after this."""
    stage.to(accelerator.device)
    for tensor in (*stage.parameters(), *stage.buffers()):
        distributed.broadcast(tensor.detach(), src=0)  # what began at random is the main process's for all
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    for module in list(stage.modules()):
        if isinstance(module, GradientCheckpointingLayer):
            fully_shard(module, mesh=mesh)
    fully_shard(stage, mesh=mesh)
    return stage


def whole(figure: Tensor) -> Tensor:
    """A figure of all processes, out of the parts of each where it is in parts."""
    return figure.full_tensor() if isinstance(figure, DTensor) else figure


@torch.no_grad()
def bring_together(stage: nn.Module, *, keep: bool) -> None:
    """Make each parameter whole again, and the modules the plain ones that they were; every process takes part, and
    those that do not keep what comes out hold nothing of it."""
    whole: dict[int, nn.Parameter] = {}
    for module in stage.modules():
        for name, parameter in module._parameters.items():
            if isinstance(parameter, DTensor):
                if id(parameter) not in whole:
                    full = parameter.full_tensor()
                    whole[id(parameter)] = nn.Parameter(
                        full if keep else torch.empty_like(full, device="meta"), requires_grad=parameter.requires_grad
                    )
                module._parameters[name] = whole[id(parameter)]
    for module in stage.modules():
        if isinstance(module, FSDPModule):
            state: Any = module._get_fsdp_state()
            state._pre_forward_hook_handle.remove()
            state._post_forward_hook_handle.remove()
            untyped: Any = module
            untyped.__class__ = type(module).__mro__[2]  # fully_shard puts a class of its own before the module's


class Shards:
    """What a checkpoint of a stage that is shared out holds: each process writes its part, of what is trained alone."""

    def __init__(self, stage: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self._stage, self._optimizer = stage, optimizer

    def save_state(self, folder: str) -> None:
        """Write into the folder."""
        save(self._state(), checkpoint_id=folder)

    def load_state(self, folder: str) -> None:
        """Take back what `save_state` wrote."""
        state = self._state()
        load(state, checkpoint_id=folder)
        set_state_dict(
            self._stage,
            self._optimizer,
            model_state_dict=state["model"],
            optim_state_dict=state["optimizer"],
            options=StateDictOptions(strict=False),
        )

    def _state(self) -> dict[str, Any]:
        model, optimizer = get_state_dict(self._stage, self._optimizer)
        trained = {name for name, parameter in self._stage.named_parameters() if parameter.requires_grad}
        return {"model": {name: model[name] for name in trained}, "optimizer": optimizer}
