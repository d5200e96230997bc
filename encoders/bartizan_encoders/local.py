"""TorchEncoder: a tower in this process; the numerical reference for every other engine."""

from typing import Self

from bartizan_connector.base.cores import available_cores
from bartizan_connector.base.errors import require_installed
from bartizan_connector.base.paths import AnyPath
from bartizan_connector.encode.batches import Ids
from bartizan_connector.encode.engine import Identity, Pace, Ran
from bartizan_connector.encode.loop import EncodeLoop
from bartizan_connector.space.spec import TowerSpec
from bartizan_encoders import NEEDED

require_installed(NEEDED, "train")

import torch  # noqa: E402

from bartizan_encoders import cuda  # noqa: E402
from bartizan_encoders.sparse_rows import sparse_rows  # noqa: E402
from bartizan_encoders.tower import Tower  # noqa: E402

_ON_A_CPU = 512
_ON_A_GPU = 32_768
"""Tokens at once: what stays in a core's cache, and what keeps a GPU busy."""


class TorchEngine:
    """Runs a tower where its weights lie, one batch at a time (torch has threads of its own)."""

    def __init__(self, tower: Tower, spec: TowerSpec, *, batch_tokens: int | None = None) -> None:
        self._tower = tower
        self._identity = Identity.of(spec)
        self._device = next(tower.parameters()).device
        self._sparse = spec.kind == "sparse"
        most = batch_tokens or (_ON_A_CPU if self._device.type == "cpu" else _ON_A_GPU)
        self.pace = Pace(batch_tokens=most, least_tokens=most)

    def run(self, ids: Ids, mask: Ids, *, deadline: float | None) -> Ran:
        """The vectors of one batch, dropout off. A batch that has begun is not broken off."""
        training = self._tower.training
        if training:
            self._tower.eval()
        try:
            with torch.inference_mode():
                on_device = (torch.from_numpy(each).to(self._device) for each in (ids, mask))
                vectors = self._tower(*on_device)
                if self._sparse:
                    return Ran(sparse_rows(vectors), self._identity)
                return Ran(vectors.to("cpu", torch.float32).numpy(), self._identity)
        finally:
            if training:
                self._tower.train()

    def close(self) -> None:
        """Nothing is held beyond memory."""


class TorchEncoder(EncodeLoop):
    """A tower run by torch, with the weights that it has when it is made into an encoder."""

    def __init__(self, tower: Tower, *, threads: int = 0, batch_tokens: int | None = None) -> None:
        if threads:
            torch.set_num_threads(threads)  # one setting for the whole process
        spec = tower.spec  # hashes the weights: once
        super().__init__(TorchEngine(tower, spec, batch_tokens=batch_tokens), tower.tokens, spec)

    @classmethod
    def open(cls, folder: AnyPath, *, threads: int = 0, batch_tokens: int | None = None) -> Self:
        """The tower in `folder`, on the GPU when there is one. `threads` 0: torch's own choice, within the cores that
        the process may use."""
        tower = Tower.load(folder)
        if torch.cuda.is_available():
            tower = tower.cuda()
            cuda.settle(torch.device("cuda"))
        return cls(tower, threads=threads or min(torch.get_num_threads(), available_cores()), batch_tokens=batch_tokens)
