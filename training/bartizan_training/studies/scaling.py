"""The scaling study: how the loss on held-out queries falls with the size of the towers and the amount of data.

1 the start tower is cut to each size 2 each size is trained on each share of the data, every example as often as with
all of it 3 each pair of towers is judged on queries that were not learned from 4 a power law is laid through the
losses.
What a run gave is kept: the same command goes on where it was interrupted.

OUT/towers/<layers>             the start towers
OUT/runs/<layers>-<share>       the runs, each with judged.json
OUT/study.json, OUT/scaling.svg the losses, the law and its residuals
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from bartizan_connector.base.aside import write_aside
from bartizan_connector.base.errors import WrongUse
from bartizan_connector.space.spec import Role
from bartizan_connector.space.vectors import Floats
from bartizan_encoders.local import TorchEncoder
from bartizan_encoders.tower import Tower
from bartizan_training.data.pairs import read_pairs
from bartizan_training.early_stop import Dev
from bartizan_training.loop import train
from bartizan_training.recipe import Recipe
from bartizan_training.settings import EarlyStop, Published
from bartizan_training.stages.contrastive import Contrastive
from bartizan_training.starting import import_into, with_folders
from bartizan_training.studies.plot import Line, plot
from bartizan_training.studies.power_law import PowerLaw, fit


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One run of the study."""

    layers: int
    share: float
    parameters: int
    """Of the layers: what every token goes through."""
    pairs: int
    loss: float
    """Of the held-out queries: cross entropy of the query's own document among those of the pool."""
    ndcg: float
    """nDCG@10 over the pool."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """All runs, and the law."""

    cells: tuple[Cell, ...]
    law: PowerLaw


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """What is studied."""

    recipe: Recipe
    """Its contrastive steps are run; what comes after them is left out."""
    data: Path
    """The BEIR folder whose held-out queries are asked."""
    out: Path
    layers: Sequence[int]
    shares: Sequence[float]
    split: str = "test"
    documents: int = 1000
    """Of the pool, beside those that the split judges."""

    def run(self) -> Outcome:
        """Train, judge and fit."""
        steps = self._steps()
        rule = EarlyStop(data=self.data, split=self.split, every=1, patience=1, documents=self.documents)
        dev = Dev.read(rule, seed=self.recipe.seed)
        towers = self._towers()
        cells = [
            self._cell(towers[layers], layers, share, steps, dev) for layers in self.layers for share in self.shares
        ]
        law = fit([cell.parameters for cell in cells], [cell.pairs for cell in cells], [cell.loss for cell in cells])
        outcome = Outcome(cells=tuple(cells), law=law)
        write_aside(self.out / "study.json", json.dumps(asdict(outcome), indent=1) + "\n")
        write_aside(self.out / "scaling.svg", drawn(outcome))
        return outcome

    def _steps(self) -> tuple[Contrastive, ...]:
        steps = tuple(step for step in self.recipe.steps if isinstance(step, Contrastive))
        if not steps:
            raise WrongUse(f"recipe '{self.recipe.name}' has no step of kind 'contrastive' to study")
        if chained := [step for step in steps if step.document or step.query or step.negatives]:
            raise WrongUse(
                f"the study runs contrastive steps one after the other, but one names what it takes "
                f"({chained[0].document or chained[0].query or chained[0].negatives}); study a recipe without that"
            )
        return steps

    def _towers(self) -> dict[int, Path]:
        """The start tower cut to its first layers."""
        places = {layers: (self.out / "towers" / str(layers)).absolute() for layers in self.layers}
        missing = [layers for layers, folder in places.items() if not folder.exists()]
        if missing:
            whole = Tower.load(self._start())
            for layers in missing:
                whole.cut(range(layers)).save(places[layers])
        return places

    def _start(self) -> Path:
        def folder_of(published: Published) -> Path:
            folder = self.out / "towers" / "whole"
            if not folder.exists():
                import_into(folder, published.model_copy(update={"layers": None}), seed=self.recipe.seed)
            return folder / "document"

        ready = with_folders(self.recipe.model_copy(update={"steps": self._steps()}), folder_of)
        return ready.start_towers["document"]

    def _cell(self, tower: Path, layers: int, share: float, steps: Sequence[Contrastive], dev: Dev) -> Cell:
        folder = self.out / "runs" / f"{layers}-{share:g}"
        judged = folder / "judged.json"
        if judged.exists():
            return Cell(**json.loads(judged.read_text(encoding="utf-8")))
        parts = tuple(_part(step, share) for step in steps)
        start = {"tower": tower, "query_tower": None, "identities": None}
        train(self.recipe.model_copy(update={**start, "steps": parts}), folder, resume=True)
        queries = _vectors(folder / "towers", "query", dev.queries)
        documents = _vectors(folder / "towers", "document", dev.documents)
        cell = Cell(
            layers=layers,
            share=share,
            parameters=_block_parameters(folder / "towers" / "document"),
            pairs=sum(len(good) for step in parts for good in read_pairs(step.data).positives),
            loss=held_out_loss(queries, documents, dev, steps[-1].loss.temperature),
            ndcg=dev.ndcg(queries, documents),
        )
        write_aside(judged, json.dumps(asdict(cell)) + "\n")
        return cell


def held_out_loss(queries: Floats, documents: Floats, dev: Dev, temperature: float) -> float:
    """The mean over the judged pairs of a query and a positive document: the cross entropy of that document among all
    that are not positive for the query."""
    found = []
    for query, grades in zip(queries, dev.grades, strict=True):
        scores = (documents @ query).astype(np.float64) / temperature
        good = [document for document, grade in grades.items() if grade >= 1]
        others = np.logaddexp.reduce(np.delete(scores, good))
        found += [float(np.logaddexp(others, scores[document]) - scores[document]) for document in good]
    return float(np.mean(found))


def drawn(outcome: Outcome) -> str:
    """The losses over the amount of data, a line for each size, and the law dashed."""
    lines = []
    for layers in sorted({cell.layers for cell in outcome.cells}):
        cells = sorted((cell for cell in outcome.cells if cell.layers == layers), key=lambda cell: cell.pairs)
        amounts = np.geomspace(cells[0].pairs, cells[-1].pairs, 40) if len(cells) > 1 else [cells[0].pairs]
        predicted = [(float(amount), outcome.law.at(cells[0].parameters, amount)) for amount in amounts]
        label = f"{layers} layers, {cells[0].parameters / 1e6:.1f} M"
        lines.append(Line(label=label, points=[(cell.pairs, cell.loss) for cell in cells], dashed=predicted))
    return plot(lines, x="pairs", y="loss of held-out queries", title=str(outcome.law))


def _part(step: Contrastive, share: float) -> Contrastive:
    """The step on a share of the data, with that share of the optimiser steps."""
    steps = None if step.steps is None else max(1, round(share * step.steps))
    data = step.data.model_copy(update={"share": share * step.data.share})
    return step.model_copy(update={"data": data, "steps": steps})


def _vectors(towers: Path, role: Role, texts: Sequence[str]) -> Floats:
    return np.asarray(TorchEncoder.open(towers / role).encode(list(texts), role).values)


def _block_parameters(folder: Path) -> int:
    backbone = Tower.load(folder).backbone
    embeddings = {id(module.weight) for module in backbone.modules() if type(module).__name__ == "Embedding"}
    return sum(parameter.numel() for parameter in backbone.parameters() if id(parameter) not in embeddings)
