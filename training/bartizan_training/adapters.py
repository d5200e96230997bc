"""What a training step may do to its towers before and after: low-rank adapters, and layers that are computed anew."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from bartizan_connector.base.errors import WrongUse
from bartizan_encoders.tower import Tower
from bartizan_training.settings import Lora, Training


def towers_in(stage: nn.Module) -> list[Tower]:
    """Each tower that the stage trains, once."""
    return [module for module in stage.modules() if isinstance(module, Tower)]


def freeze(stage: nn.Module, table: Training) -> None:
    """Leave of the stage's parameters only those to be trained that the recipe asks for."""
    if table.lora:
        adapt_with(stage, table.lora)
    if table.freeze_embeddings:
        for tower in towers_in(stage):
            tower.backbone.get_input_embeddings().requires_grad_(False)


def adapt_with(stage: nn.Module, lora: Lora) -> None:
    """Give every backbone adapters; of a tower, nothing else is trained but a dense head."""
    from peft import LoraConfig, inject_adapter_in_model  # takes seconds, which only who asks for it should pay

    for tower in towers_in(stage):
        linear = [name for name, module in tower.backbone.named_modules() if isinstance(module, nn.Linear)]
        chosen = [name for name in linear if not lora.targets or name.endswith(lora.targets)]
        if not chosen:
            raise WrongUse(
                f"lora.targets = {list(lora.targets or ())}: the backbone has no linear layer of such a name; it has "
                f"{', '.join(sorted({name.rsplit('.', 1)[-1] for name in linear}))}"
            )
        frozen = [*tower.backbone.parameters()]
        if tower.head is not None and not isinstance(tower.head, nn.Linear):
            frozen += [*tower.head.parameters()]
        for parameter in frozen:
            parameter.requires_grad_(False)
        config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=chosen, lora_dropout=0.0)  # type: ignore[arg-type]
        inject_adapter_in_model(config, tower.backbone)


@torch.no_grad()
def merge(stage: nn.Module) -> None:
    """Add every adapter to the matrix that it stands beside: the towers are plain ones again."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for tower in towers_in(stage):
        for name, module in list(tower.backbone.named_modules()):
            if isinstance(module, BaseTunerLayer):
                untyped: Any = module
                untyped.merge()
                parent, _, key = name.rpartition(".")
                setattr(tower.backbone.get_submodule(parent), key, untyped.get_base_layer())
        tower.requires_grad_(True)


def compute_anew(stage: nn.Module) -> None:
    """Keep of each layer only what goes in, and compute the rest again when its gradient is asked for."""
    for tower in towers_in(stage):
        layers = [module for module in tower.backbone.modules() if isinstance(module, GradientCheckpointingLayer)]
        if not layers:
            raise WrongUse(
                f"gradient_checkpointing: a {tower.architecture['model_type']} has no layers that can be computed anew"
            )
        for layer in layers:
            layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)


def as_they_were(stage: nn.Module) -> None:
    """Undo `compute_anew`."""
    for tower in towers_in(stage):
        for module in tower.backbone.modules():
            module.__dict__.pop("forward", None)


def save_what_is_trained(stage: nn.Module) -> None:
    """Keep what stays as it is, and the second name of a tied weight, out of the stage's checkpoints; loading one asks
    for the rest, and only that."""
    trained = {name for name, parameter in stage.named_parameters() if parameter.requires_grad}
    frozen = {name for name, _ in stage.named_parameters(remove_duplicate=False)} - trained

    def leave_out(module: nn.Module, state: dict[str, Tensor], prefix: str, _: Any) -> None:
        for name in frozen:
            state.pop(prefix + name, None)

    def not_missed(module: nn.Module, incompatible: Any) -> None:
        missing = [name for name in incompatible.missing_keys if name.removeprefix("module.") not in frozen]
        incompatible.missing_keys[:] = missing

    if frozen:
        untyped: Any = stage
        untyped.register_state_dict_post_hook(leave_out)
        untyped.register_load_state_dict_post_hook(not_missed)
