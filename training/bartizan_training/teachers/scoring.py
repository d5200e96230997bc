"""Scores of many pairs by a cross-encoder, by all processes together; what was scored when it was killed is kept."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from bartizan_training.data.digests import digests_of, pair_digests
from bartizan_training.data.packing import Packed
from bartizan_training.data.ragged import Indices
from bartizan_training.data.scores import Scores
from bartizan_training.progress import progress
from bartizan_training.step import Place, suited
from bartizan_training.teachers.cross_encoder import CrossEncoder, PairTable

_BLOCK = 512
"""Pairs that are sorted by length together."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pairs:
    """Pairs of a query and a document, by their numbers."""

    queries: tuple[str, ...]
    documents: tuple[str, ...]
    query: Indices
    document: Indices

    @property
    def digests(self) -> np.ndarray:
        """One number a pair."""
        return pair_digests(digests_of(self.queries)[self.query], digests_of(self.documents)[self.document])


def scores_of(pairs: Pairs, teacher: Path, place: Place, *, precision: str) -> Scores:
    """The score of each pair by the cross-encoder in that folder.

    They are written into a file of the step's folder as they come; a run that was killed goes on behind them. The file
    is named after the pairs and the teacher, so that it never answers for others.
    """
    accelerator = place.accelerator
    model = CrossEncoder.load(teacher)
    key = hashlib.sha256(pairs.digests.tobytes() + f"{model.tower.spec.tower_id} {precision}".encode()).hexdigest()
    path = place.folder / "checkpoints" / f"scores-{key[:16]}.npy"
    if accelerator.is_main_process and not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(".part")
        with fresh.open("wb") as file:
            np.save(file, np.full(len(pairs.query), np.nan, dtype=np.float32))
        fresh.rename(path)
    accelerator.wait_for_everyone()
    scores = np.lib.format.open_memmap(path, mode="r+")
    _fill(scores, pairs, model, place, precision)
    scores.flush()
    accelerator.wait_for_everyone()
    return np.array(np.lib.format.open_memmap(path, mode="r"))


@torch.no_grad()
def _fill(scores: Scores, pairs: Pairs, model: CrossEncoder, place: Place, precision: str) -> None:
    """Each process scores every so many-th pair that has no score yet."""
    accelerator = place.accelerator
    budget = suited(accelerator.device)
    model.to(accelerator.device).eval()
    table = PairTable(model.tower.tokens, pairs.queries, pairs.documents, make=place.tokens)
    with progress(accelerator, "scores of the cross-encoder", total=len(scores)) as tick:
        for start in range(0, len(scores), _BLOCK):
            end = min(start + _BLOCK, len(scores))
            mine = np.arange(start + accelerator.process_index, end, accelerator.num_processes)
            mine = mine[np.isnan(scores[mine])]
            if mine.size:
                ids, lengths = table.pick(pairs.query[mine], pairs.document[mine])
                packed = Packed.of(ids, budget).to(accelerator.device)
                scores[mine] = model(packed, lengths.to(accelerator.device), precision).cpu().numpy()
            tick(end - start)
