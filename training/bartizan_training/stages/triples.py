"""What the stages share that learn from triples: their keys, their rows with a teacher's scores, and the checks."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from pydantic import model_validator

from bartizan_connector.base.errors import WrongUse
from bartizan_training.artefacts import Kind
from bartizan_training.data.samplers import Order, require_even
from bartizan_training.data.scores import Scores, ScoreTable
from bartizan_training.data.triple_rows import Triples
from bartizan_training.data.triple_tables import TripleSource
from bartizan_training.data.triples import read_triples
from bartizan_training.settings import Positive, Start
from bartizan_training.stages.stage import TrainingStep
from bartizan_training.step import Reference, Taken, under_key
from bartizan_training.teachers.score import require_negatives_once, triples_of
from bartizan_training.towers import PlannedTower


class FromTriples(TrainingStep):
    """The keys of a step that trains on triples, over the backbone of a tower."""

    document: Reference | None = None
    """The tower whose backbone it starts from: `step.document`; none: the newest."""
    backbone: Start | None = None
    """In place of `document`: it starts from this tower, or this published model; a teacher may be larger."""
    data: TripleSource
    """Triples of query, positive and negative."""
    negatives: Reference | None = None
    """Hard negatives that a `mine` step before has found, by its name, in place of a file in `data`."""
    query_tokens: Positive = 30
    """Longest query."""
    document_tokens: Positive = 200
    """Longest document."""

    takes: ClassVar[Mapping[str, Kind]] = {"document": "towers", "negatives": "negatives"}
    brings: ClassVar[str] = "backbone"

    @model_validator(mode="after")
    def _one_source_of_negatives(self) -> Self:
        require_negatives_once(self.data, self.negatives)
        return self

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if self.document and self.backbone:
            raise ValueError(f"document = '{self.document}' and a backbone: give one of them")
        return self

    def plan(self, name: str, towers: Mapping[str, PlannedTower]) -> Mapping[str, PlannedTower]:
        """Gives no towers."""
        self.origin(towers)
        return {}

    def origin(self, towers: Mapping[str, PlannedTower]) -> PlannedTower:
        """The tower that it starts from; one with a language model's head is refused."""
        tower = PlannedTower.read(self.brought) if self.brought else towers["document"]
        with under_key(self.brings if self.brought else "document"):
            if tower.spec.kind != "dense":
                raise WrongUse(f"it starts from a dense tower, and '{tower.spec.name}' is {tower.spec.kind}")
        return tower

    def check_data(self, seed: tuple[int, int], processes: int) -> None:
        """Triples that fill a batch."""
        with under_key("data"):
            triples = read_triples(self.data)
        with under_key("batch_size"):
            Order(len(triples), self.batch_size, seed=seed)
            require_even(self.batch_size, processes)
        self.check_triples(triples)

    def check_triples(self, triples: Triples) -> None:
        """Refuse triples that this step cannot do with."""


class FromScores(FromTriples):
    """The keys of a step that learns from a teacher's scores."""

    scores: Reference | None = None
    """The scores of a `score` step before, by its name; none: those that the data brings."""

    takes: ClassVar[Mapping[str, Kind]] = {**FromTriples.takes, "scores": "scores"}

    def check_triples(self, triples: Triples) -> None:
        """Scores that come with the data, or from a step."""
        if triples.scores is None and self.scores is None:
            raise WrongUse(
                "data: it brings no teacher's scores: name a step of kind 'score' as `scores`, or give lines of "
                "pos_score neg_score qid pos_pid neg_pid"
            )
        if triples.scores is not None and self.scores is not None:
            raise WrongUse(f"scores = '{self.scores}', but the data brings scores of its own: leave one of them out")


def scored(data: FromScores, taken: Taken) -> tuple[Triples, Scores]:
    """The triples, and the teacher's margin of each row."""
    triples = triples_of(data.data, taken)
    if "scores" not in taken:
        assert triples.scores is not None  # check_triples
        return triples, triples.scores[0] - triples.scores[1]
    return triples, margins_of(triples, taken["scores"])


def margins_of(triples: Triples, scores: Path) -> Scores:
    """The margin of each row, by the scores of its two pairs."""
    table = ScoreTable.read(scores)
    with under_key("scores"):
        better, worse = (
            table.find(triples.queries, triples.documents, triples.query, side)
            for side in (triples.positive, triples.negative)
        )
    return np.asarray(better - worse, dtype=np.float32)
