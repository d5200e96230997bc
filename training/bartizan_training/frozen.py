"""Vectors of a tower that does not change: computed once by all processes together, kept as an artefact of the run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bartizan_connector.space.spec import Role
from bartizan_connector.space.vectors import Floats
from bartizan_encoders.tower import Tower
from bartizan_training.data.packing import Packed
from bartizan_training.data.ragged import Indices
from bartizan_training.data.token_table import TokenTable, identity_of
from bartizan_training.embedding import capped, encode
from bartizan_training.progress import progress
from bartizan_training.step import Place, suited

_FILE = "vectors.npy"
_BLOCK = 512
"""Texts that are sorted by length together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frozen:
    """Texts and the tower that never changes. The text is the key: two towers may tokenise it differently."""

    tower: Tower
    role: Role
    texts: Sequence[str]
    raw: bool = False
    """Before normalisation."""
    precision: str = "fp32"
    max_tokens: int | None = None
    """Texts are cut here, where the tower's own limit is higher."""

    @property
    def made_from(self) -> Mapping[str, Any]:
        """What the vectors depend on."""
        facts: dict[str, Any] = {"tower": self.tower.spec.tower_id, "role": self.role, "texts": identity_of(self.texts)}
        facts |= {"raw": self.raw, "precision": self.precision}
        return facts if self.max_tokens is None else facts | {"max_tokens": self.max_tokens}


class FrozenVectors:
    """One vector a text."""

    def __init__(self, values: Floats) -> None:
        self.values = values

    def pick(self, indices: Indices) -> Tensor:
        """The vectors of the texts of these numbers."""
        return torch.from_numpy(np.ascontiguousarray(self.values[indices]))


def freeze(frozen: Frozen, place: Place) -> FrozenVectors:
    """The vectors of the texts, out of the run's artefacts when they are there."""
    artefact = place.artefacts.of(frozen.role, "vectors", frozen.made_from)
    exists = artefact.exists
    place.accelerator.wait_for_everyone()
    if not exists:
        with artefact.written_by_all(place.accelerator) as folder:
            if place.accelerator.is_main_process:
                shape = (len(frozen.texts), frozen.tower.spec.dim)
                np.lib.format.open_memmap(folder / _FILE, mode="w+", dtype=np.float32, shape=shape).flush()
            place.accelerator.wait_for_everyone()
            values = np.lib.format.open_memmap(folder / _FILE, mode="r+")
            _fill(values, frozen, place)
            values.flush()
    return FrozenVectors(np.lib.format.open_memmap(artefact.folder / _FILE, mode="r"))


@torch.no_grad()
def _fill(values: Floats, frozen: Frozen, place: Place) -> None:
    """Each process computes every so many-th text."""
    accelerator, texts = place.accelerator, frozen.texts
    budget = suited(accelerator.device)
    tower = frozen.tower.to(accelerator.device).eval()
    cut = capped(tower, frozen.max_tokens)
    with progress(accelerator, f"{frozen.role} vectors of the frozen tower", total=len(texts)) as tick:
        for start in range(0, len(texts), _BLOCK):
            end = min(start + _BLOCK, len(texts))
            mine = np.arange(start + accelerator.process_index, end, accelerator.num_processes)
            if mine.size:
                tokens = TokenTable(cut, frozen.role, [texts[i] for i in mine])
                packed = Packed.of(tokens.pick(np.arange(len(tokens))), budget)
                vectors = encode(tower, packed.to(accelerator.device), precision=frozen.precision, raw=frozen.raw)
                values[mine] = vectors.cpu().numpy()
            tick(end - start)
