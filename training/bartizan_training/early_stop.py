"""Early stop: every few steps the towers answer queries that are not learned from; when that gets no better, enough.

What is judged is what the towers are at that step, by nDCG@10 over a pool of documents. The best weights lie beside the
checkpoints until the step is done. All that decides when to stop is part of the checkpoint, so that a run that was
killed stops where it would have.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import torch
from accelerate.utils import broadcast

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.space.spec import Role
from bartizan_connector.space.vectors import Floats
from bartizan_connector.store import exact
from bartizan_encoders.tower import Tower
from bartizan_training import checkpoint
from bartizan_training.checkpoint import Standing
from bartizan_training.data.collections import BeirData
from bartizan_training.data.packing import Packed
from bartizan_training.data.token_table import TokenTable
from bartizan_training.embedding import encode
from bartizan_training.settings import EarlyStop
from bartizan_training.stages.stage import Stage, TrainingStep
from bartizan_training.step import Place

DEPTH = 10
_BLOCK = 256
_POOL = 0
"""What the random generator of the pool is for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dev:
    """Queries with their judgements, and the documents among which theirs are looked for."""

    queries: tuple[str, ...]
    documents: tuple[str, ...]
    grades: tuple[Mapping[int, int], ...]
    """For each query, the grade of each judged document, by its number in `documents`."""

    @classmethod
    def read(cls, table: EarlyStop, *, seed: int) -> Self:
        """The judged queries of the split with all their judged documents, and as many others drawn at random."""
        data = BeirData.read(table.data)
        qrels = data.qrels(table.split)
        judged = sorted({id for grades in qrels.values() for id in grades})
        others = sorted(data.corpus.keys() - set(judged))
        drawn = np.random.default_rng([seed, _POOL]).permutation(len(others))[: table.documents]
        ids = sorted([*judged, *(others[i] for i in drawn)])
        place = {id: number for number, id in enumerate(ids)}
        answerable = {id: grades for id, grades in qrels.items() if any(grade >= 1 for grade in grades.values())}
        if not answerable:
            raise WrongUse(f"split '{table.split}' of {table.data} judges no document positive; nothing can be judged")
        return cls(
            queries=tuple(data.queries[id] for id in answerable),
            documents=tuple(data.corpus[id] for id in ids),
            grades=tuple({place[id]: grade for id, grade in grades.items()} for grades in answerable.values()),
        )

    def ndcg(self, queries: Floats, documents: Floats) -> float:
        """The mean nDCG@10 of exact search with these vectors."""
        found, _ = exact.top_k(queries, documents, min(DEPTH, len(documents)))
        return float(np.mean([ndcg(row, grades) for row, grades in zip(found, self.grades, strict=True)]))


def ndcg(found: Sequence[int], grades: Mapping[int, int]) -> float:
    """nDCG@10 of one answer, with grades as gains."""
    gains = [max(0, grades.get(int(document), 0)) for document in found[:DEPTH]]
    ideal = sorted((max(0, grade) for grade in grades.values()), reverse=True)[:DEPTH]
    return _dcg(gains) / _dcg(ideal)


def _dcg(gains: Sequence[int]) -> float:
    return float(sum(gain / np.log2(rank + 2) for rank, gain in enumerate(gains)))


class Watch:
    """Judges a stage's towers as it is trained, and keeps the best weights."""

    def __init__(self, stage: Stage, table: TrainingStep, rule: EarlyStop, place: Place, standing: Standing) -> None:
        self.standing = standing
        self._stage, self._table, self._rule, self._place = stage, table, rule, place
        self._dev = Dev.read(rule, seed=place.recipe_seed)
        self._frozen: Floats | None = None

    @property
    def over(self) -> bool:
        """Whether the last judgements brought no gain, as often as the recipe has patience."""
        return self.standing.without_gain >= self._rule.patience

    def due(self, step: int, last: int) -> bool:
        """Whether the towers are judged after this step."""
        return step % self._rule.every == 0 or step == last

    def look(self, step: int) -> dict[str, float]:
        """Judge the towers; weights that are the best so far are kept."""
        found = self._figure()
        best = self.standing.best is None or found > self.standing.best
        if best:
            checkpoint.save_weights(self._place.accelerator, self._file(step), self._stage)
            self.standing = Standing(best=found, best_step=step)
        else:
            self.standing = replace(self.standing, without_gain=self.standing.without_gain + 1)
        return {"dev_nDCG@10": found, "dev_best_step": self.standing.best_step}

    def forget_older(self) -> None:
        """Drop the weights that were the best before; the checkpoint that knows them is gone."""
        if self._place.accelerator.is_main_process:
            for file in self._file(0).parent.glob("best-*"):
                if file != self._file(self.standing.best_step):
                    file.unlink()

    def restore(self, step: int) -> None:
        """Bring the best weights back."""
        if self.standing.best_step not in (0, step):
            checkpoint.load_weights(self._file(self.standing.best_step), self._stage)

    def _figure(self) -> float:
        pair = self._stage.towers_now()
        assert pair is not None  # TrainingStep refuses the rest
        query, document = pair
        training = self._stage.training
        self._stage.eval()
        try:
            documents = self._documents(document)
            figure = self._dev.ndcg(self._vectors(query, "query", self._dev.queries), documents)
        finally:
            self._stage.train(training)
        accelerator = self._place.accelerator
        if accelerator.num_processes > 1:  # one process's figure counts for all
            shared = broadcast(torch.tensor([figure], dtype=torch.float64, device=accelerator.device))
            figure = float(shared.item())
        return figure

    def _documents(self, document: Tower | Path) -> Floats:
        """Vectors of a tower that stays as it is are computed once."""
        if isinstance(document, Tower):
            return self._vectors(document, "document", self._dev.documents)
        if self._frozen is None:
            tower = Tower.load(document).to(self._place.accelerator.device)
            self._frozen = self._vectors(tower, "document", self._dev.documents)
        return self._frozen

    @torch.no_grad()
    def _vectors(self, tower: Tower, role: Role, texts: Sequence[str]) -> Floats:
        device, budget = self._place.accelerator.device, self._place.budget(self._table)
        tokens = TokenTable(tower.tokens, role, texts)
        parts = []
        for start in range(0, len(texts), _BLOCK):
            picked = tokens.pick(np.arange(start, min(start + _BLOCK, len(texts))))
            packed = Packed.of(picked, budget).to(device)
            parts.append(encode(tower, packed, precision=self._table.precision).cpu().numpy())
        return np.concatenate(parts)

    def _file(self, step: int) -> Path:
        return self._place.folder / "checkpoints" / f"best-{step:08d}.pt"
