"""Scores of pairs by a cross-encoder: computed once by all processes together, kept as an artefact."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
from pydantic import model_validator

from bartizan_training.artefacts import Kind
from bartizan_training.data.negatives import NEGATIVES_FILE
from bartizan_training.data.ragged import Indices
from bartizan_training.data.scores import ScoreTable, distinct_pairs
from bartizan_training.data.triple_rows import Triples
from bartizan_training.data.triple_tables import Judged, TripleSource
from bartizan_training.data.triples import Source, identity_of, read_triples
from bartizan_training.step import MakingStep, Place, Reference, Taken, under_key
from bartizan_training.teachers.scoring import Pairs, scores_of
from bartizan_training.towers import PlannedTower


class Score(MakingStep):
    """Its table in a recipe."""

    kind: Literal["score"]
    """`score`"""
    teacher: Reference
    """The cross-encoder: the step that trained it."""
    data: TripleSource
    """Triples; every pair of a query and a document in them is scored once."""
    negatives: Reference | None = None
    """Hard negatives that a `mine` step before has found, by its name, in place of a file in `data`."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic inside the teacher."""

    gives: ClassVar[Kind] = "scores"
    takes: ClassVar[Mapping[str, Kind]] = {"teacher": "cross_encoder", "negatives": "negatives"}

    @model_validator(mode="after")
    def _one_source_of_negatives(self) -> Self:
        require_negatives_once(self.data, self.negatives)
        return self

    def plan(self, name: str, towers: Mapping[str, PlannedTower]) -> Mapping[str, PlannedTower]:
        """Gives no towers."""
        return {}

    def check_data(self, seed: tuple[int, int], processes: int) -> None:
        """Triples that can be read."""
        with under_key("data"):
            read_triples(self.data)

    def made_from(self) -> dict[str, Any]:
        """The settings, and what the data is."""
        return super().made_from() | {"data_id": identity_of(self.data)}

    def make(self, taken: Taken, place: Place, folder: Path) -> None:
        """Score each different pair once."""
        triples = triples_of(self.data, taken)
        query, document = pairs_of(triples)
        pairs = Pairs(queries=triples.queries, documents=triples.documents, query=query, document=document)
        scores = scores_of(pairs, taken["teacher"], place, precision=self.precision)
        if place.accelerator.is_main_process:
            ScoreTable.of(pairs.digests, scores).write(folder)


def triples_of(data: Source, taken: Taken) -> Triples:
    """The triples, with the hard negatives that a step before has mined."""
    if "negatives" in taken:
        data = data.model_copy(update={"negatives": taken["negatives"] / NEGATIVES_FILE})
    return read_triples(data)


def pairs_of(triples: Triples) -> tuple[Indices, Indices]:
    """Each different pair of query and document of the triples."""
    queries = np.concatenate([triples.query, triples.query])
    return distinct_pairs(queries, np.concatenate([triples.positive, triples.negative]))


def require_negatives_once(data: Source, negatives: str | None) -> None:
    """Refuse mined negatives for data that brings its own."""
    if negatives is None:
        return
    if not isinstance(data, Judged):
        raise ValueError(f"negatives = '{negatives}' is for data of kind 'judged'; '{data.kind}' brings its own")
    if data.negatives:
        raise ValueError(f"negatives = '{negatives}' and data.negatives = '{data.negatives}': give one of them")
