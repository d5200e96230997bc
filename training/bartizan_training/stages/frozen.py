"""Vectors of a frozen tower: computed once, shared by all processes, kept on disk, found again by a resumed run."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bartizan_connector.space.spec import Role
from bartizan_connector.space.vectors import Floats
from bartizan_encoders.tower import Tower
from bartizan_training.data.packing import Packed, TokenTable
from bartizan_training.data.samplers import Indices
from bartizan_training.progress import watched
from bartizan_training.settings import Training
from bartizan_training.stages.stage import Place, encode

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


class FrozenVectors:
    """One vector a text."""

    def __init__(self, values: Floats) -> None:
        self._values = values

    def pick(self, indices: Indices) -> Tensor:
        """The vectors of the texts of these numbers."""
        return torch.from_numpy(np.ascontiguousarray(self._values[indices]))


def freeze(frozen: Frozen, table: Training, place: Place) -> FrozenVectors:
    """The vectors of the texts, from the stage's folder when they are there."""
    folder, accelerator = place.folder / "frozen", place.accelerator
    path, key_path = folder / "vectors.npy", folder / "key.json"
    key = _key(frozen, table)
    complete = key_path.exists() and json.loads(key_path.read_text(encoding="utf-8")) == key
    accelerator.wait_for_everyone()
    if not complete:
        if accelerator.is_main_process:
            folder.mkdir(parents=True, exist_ok=True)
            key_path.unlink(missing_ok=True)
            path.unlink(missing_ok=True)  # whoever has the old file mapped keeps it
            shape = (len(frozen.texts), frozen.tower.spec.dim)
            np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape).flush()
        accelerator.wait_for_everyone()
        _fill(np.lib.format.open_memmap(path, mode="r+"), frozen, table, place)
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            aside = key_path.with_suffix(".part")
            aside.write_text(json.dumps(key), encoding="utf-8")
            aside.rename(key_path)
    return FrozenVectors(np.lib.format.open_memmap(path, mode="r"))


@torch.no_grad()
def _fill(values: Floats, frozen: Frozen, table: Training, place: Place) -> None:
    """Each process computes every so many-th text."""
    accelerator, texts = place.accelerator, frozen.texts
    tower = frozen.tower.to(accelerator.device).eval()
    with watched(accelerator, f"{frozen.role} vectors of the frozen tower", total=len(texts)) as tick:
        for start in range(0, len(texts), _BLOCK):
            end = min(start + _BLOCK, len(texts))
            mine = np.arange(start + accelerator.process_index, end, accelerator.num_processes)
            if mine.size:
                tokens = TokenTable(tower.tokens, frozen.role, [texts[i] for i in mine])
                packed = Packed.of(tokens.pick(np.arange(len(tokens))), place.budget(table))
                vectors = encode(tower, packed.to(accelerator.device), table, raw=frozen.raw)
                values[mine] = vectors.cpu().numpy()
            tick(end - start)


def _key(frozen: Frozen, table: Training) -> dict[str, Any]:
    """What the vectors depend on."""
    texts = hashlib.sha256(json.dumps(list(frozen.texts)).encode()).hexdigest()
    facts = {"tower": frozen.tower.spec.tower_id, "role": frozen.role, "texts": texts}
    return facts | {"raw": frozen.raw, "precision": table.precision}
