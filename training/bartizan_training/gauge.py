"""What a tower takes for each token: seconds and memory, measured by running a few texts through it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from bartizan_connector.space.spec import Role
from bartizan_encoders.tower import Tower
from bartizan_training.data.packing import Packed
from bartizan_training.data.token_table import TokenTable
from bartizan_training.embedding import arithmetic
from bartizan_training.settings import Training
from bartizan_training.step import suited

_TEXTS = 24
_TRIES = 2
_ADAM = 4
"""Numbers that a weight in training takes: itself, its gradient and two moments."""
_FP32 = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauge:
    """A tower's appetite."""

    tower: Tower
    layers: int
    """How many of its layers are used."""
    seconds_encoded: float
    """A token, forwards."""
    seconds_trained: float
    """A token, forwards and backwards."""
    kept: float
    """Bytes that are held of a token until its gradient is known."""

    def with_layers(self, layers: int) -> Self:
        """The same with fewer layers: everything in proportion."""
        part = layers / self.layers
        return replace(
            self,
            layers=layers,
            seconds_encoded=part * self.seconds_encoded,
            seconds_trained=part * self.seconds_trained,
            kept=part * self.kept,
        )

    def mean_tokens(self, role: Role, texts: Sequence[str], most: int | None) -> float:
        """Of a text in that role, cut at `most`."""
        spec = self.tower.spec
        roles = spec.roles if role in spec.roles else {role: next(iter(spec.roles.values()))}
        tokens = self.tower.tokens.serving(roles, spec.special_tokens)
        lengths = [len(text.ids) for text in tokens.encode(list(texts), role)]
        return float(np.mean(np.minimum(lengths, most or max(lengths))))

    def weights_bytes(self, trained: Training | None) -> int:
        """Weights, and for a tower in training their gradients and moments."""
        embeddings = sum(module.weight.numel() for module in self.tower.modules() if isinstance(module, nn.Embedding))
        part = self.layers / int(self.tower.backbone.config.num_hidden_layers)
        of_layers = part * (sum(parameter.numel() for parameter in self.tower.parameters()) - embeddings)
        weights = embeddings + of_layers
        if trained is None:
            return round(_FP32 * weights)
        if trained.lora:
            linear = [module for module in self.tower.backbone.modules() if isinstance(module, nn.Linear)]
            sides = sum(int(module.in_features) + int(module.out_features) for module in linear)
            adapters = part * trained.lora.rank * sides
            return round(_FP32 * (weights + _ADAM * adapters))
        learned = of_layers if trained.freeze_embeddings else weights
        return round(_FP32 * (weights + (_ADAM - 1) * learned))

    def kept_bytes(self, table: Training) -> float:
        """Of a token, as the recipe trains."""
        narrow = 0.5 if table.precision == "bf16" else 1.0
        if table.gradient_checkpointing:
            return narrow * _FP32 * self.layers * int(self.tower.backbone.config.hidden_size)
        return narrow * self.kept


def gauge(tower: Tower, role: Role, texts: Sequence[str]) -> Gauge:
    """Run a few of the texts through the tower, forwards and backwards."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tower = tower.to(device).eval()
    spec = tower.spec
    roles = spec.roles if role in spec.roles else {role: next(iter(spec.roles.values()))}
    some = texts[:: max(1, len(texts) // _TEXTS)][:_TEXTS]
    table = TokenTable(tower.tokens.serving(roles, spec.special_tokens), role, some)
    packed = Packed.of(table.pick(np.arange(len(table))), suited(device)).to(device)
    encoded, trained, kept = [], [], 0
    for _ in range(_TRIES):
        with torch.no_grad(), arithmetic(packed, "fp32"):
            begun = _now(device)
            for ids, mask in packed.pieces:
                tower(ids, mask)
            encoded.append(_now(device) - begun)
        counter = _Kept(tower)
        begun = _now(device)
        with torch.autograd.graph.saved_tensors_hooks(counter.count, lambda tensor: tensor):
            vectors = torch.cat([tower(ids, mask) for ids, mask in packed.pieces])
        vectors.square().mean().backward()  # type: ignore[no-untyped-call]
        trained.append(_now(device) - begun)
        kept = counter.bytes
        tower.zero_grad(set_to_none=True)
    return Gauge(
        tower=tower,
        layers=tower.backbone.config.num_hidden_layers,
        seconds_encoded=min(encoded) / packed.tokens,
        seconds_trained=min(trained) / packed.tokens,
        kept=kept / packed.tokens,
    )


class _Kept:
    """Counts what a forward pass keeps for the backward one, each piece of memory once and no weights."""

    def __init__(self, tower: Tower) -> None:
        self._seen = {parameter.untyped_storage().data_ptr() for parameter in tower.parameters()}
        self._alive: list[Tensor] = []
        self.bytes = 0

    def count(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._seen:
            self._seen.add(storage.data_ptr())
            self._alive.append(tensor)  # memory that is freed would be given out again, and not be counted
            self.bytes += storage.nbytes()
        return tensor


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.monotonic()
