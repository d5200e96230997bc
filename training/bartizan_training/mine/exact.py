"""Hard negatives by exact search: what the document tower places nearest to a query and nobody judged positive."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from bartizan_connector.base.errors import WrongUse
from bartizan_training.artefacts import Kind
from bartizan_training.data.collections import BeirData
from bartizan_training.data.negatives import NEGATIVES_FILE, write_negatives
from bartizan_training.data.ragged import Indices, Ragged
from bartizan_training.frozen import Frozen, freeze
from bartizan_training.mine.nearest import nearest
from bartizan_training.settings import Positive, RecipePath, query_files
from bartizan_training.step import FromTowers, MakingStep, Place, Reference, Taken, under_key
from bartizan_training.teachers.scoring import Pairs, scores_of
from bartizan_training.towers import PlannedTower, Towers


class Mine(FromTowers, MakingStep):
    """Its table in a recipe."""

    kind: Literal["mine"]
    """`mine`"""
    path: RecipePath
    """The BEIR folder."""
    split: str = "train"
    """Queries to mine for: those with a positive document in `qrels/<split>.tsv`."""
    skip: Annotated[int, Field(ge=0)] = 0
    """Nearest documents that are left out: many of them answer the query though nobody judged them."""
    depth: Positive = 50
    """Rank of the last document that is taken; positives have no rank."""
    below: Annotated[float, Field(gt=0)] | None = None
    """Drop what scores above so many times the query's (least similar) positive; 0.95 in NV-Retriever."""
    teacher: Reference | None = None
    """A `cross_encoder` step before, by its name: drop what it scores above the query's positive."""
    teacher_margin: float = 0.0
    """Drop what the teacher does not score so much below the query's positive."""
    count: Positive | None = None
    """Keep the first so many of what is left; none: all."""
    max_tokens: Positive | None = None
    """Cut texts here to rank them, where the tower's own limit is higher."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic inside the towers."""

    gives: ClassVar[Kind] = "negatives"
    takes: ClassVar[Mapping[str, Kind]] = {**FromTowers.takes, "teacher": "cross_encoder"}

    @model_validator(mode="after")
    def _some_left(self) -> Self:
        if self.skip >= self.depth:
            raise ValueError(f"skip = {self.skip} leaves none of the depth = {self.depth} documents")
        return self

    def rests_on(self) -> Iterator[Path]:
        """The documents and the judged queries."""
        yield from super().rests_on()
        yield self.path / "corpus.jsonl"
        yield from query_files(self.path, self.split)

    def plan(self, name: str, towers: Mapping[str, PlannedTower]) -> Mapping[str, PlannedTower]:
        """Gives no towers."""
        towers["document"].spec.role("document")
        towers["query"].spec.role("query")
        return {}

    def check_data(self, seed: tuple[int, int], processes: int) -> None:
        """Queries with a positive document."""
        with under_key("path"):
            _positives(BeirData.read(self.path), self)

    def made_from(self) -> dict[str, Any]:
        """The settings, and what the data is."""
        return super().made_from() | {"data": BeirData.read(self.path).digest(self.split)}

    def make(self, taken: Taken, place: Place, folder: Path) -> None:
        """Find the negatives, and write them."""
        found = mined(self, Towers.load(taken["document"], taken["query"]), taken.get("teacher"), place)
        if place.accelerator.is_main_process:
            write_negatives(folder / NEGATIVES_FILE, found)


def mined(table: Mine, towers: Towers, teacher: Path | None, place: Place) -> dict[str, list[str]]:
    """For each query the documents between `skip` and `depth` that are no positives, and that no filter drops.

    Every process is in here; vectors are kept among the place's artefacts, under the tower and the texts.
    """
    data = BeirData.read(table.path)
    positives = _positives(data, table)
    first_ids: dict[str, str] = {}
    for id in sorted(data.corpus):
        first_ids.setdefault(data.corpus[id], id)  # equal texts are one document
    texts, asked = tuple(first_ids), tuple(data.queries[query] for query in positives)
    how: Mapping[str, Any] = {"precision": table.precision, "max_tokens": table.max_tokens}
    documents = freeze(Frozen(tower=towers.document, role="document", texts=texts, **how), place).values
    queries = freeze(Frozen(tower=towers.query, role="query", texts=asked, **how), place).values
    wanted = set().union(*positives.values())
    numbers = {text: number for number, text in enumerate(texts) if text in wanted}
    own = [np.array([numbers[text] for text in good], dtype=np.int64) for good in positives.values()]
    found, scores = _nearest(queries, documents, table.depth + max(map(len, own)), place)
    kept: list[Indices] = []
    for row, good in enumerate(own):
        ranked = np.flatnonzero(~np.isin(found[row], good))[table.skip : table.depth]
        if table.below is not None:
            least = float((documents[good] @ queries[row]).min())
            ranked = ranked[scores[row, ranked] < least - (1 - table.below) * abs(least)]
        kept.append(found[row, ranked])
    if teacher is not None:
        kept = _below_the_teachers(kept, own, (asked, texts), teacher, table, place)
    ids = tuple(first_ids.values())
    return {query: [ids[n] for n in row[: table.count]] for query, row in zip(positives, kept, strict=True)}


def _nearest(queries: Any, documents: Any, k: int, place: Place) -> tuple[Indices, Any]:
    """Found by the main process, for all."""
    path = place.folder / "checkpoints" / "nearest.npz"
    if place.accelerator.is_main_process:
        path.parent.mkdir(parents=True, exist_ok=True)
        found, scores = nearest(queries, documents, k)
        np.savez(path, found=found, scores=scores)
    place.accelerator.wait_for_everyone()
    with np.load(path) as file:
        return file["found"], file["scores"]


def _below_the_teachers(
    kept: list[Indices],
    own: list[Indices],
    texts: tuple[tuple[str, ...], tuple[str, ...]],
    teacher: Path,
    table: Mine,
    place: Place,
) -> list[Indices]:
    """Those that the teacher scores below the query's positive, of several the one that it scores least."""
    rows = Ragged.of([np.concatenate([good, some]) for good, some in zip(own, kept, strict=True)])
    used, document = np.unique(rows.flat, return_inverse=True)
    asked, all_texts = texts
    pairs = Pairs(
        queries=asked, documents=tuple(all_texts[n] for n in used), query=rows.owners, document=document.reshape(-1)
    )
    scores = np.split(scores_of(pairs, teacher, place, precision=table.precision), np.cumsum(rows.lengths)[:-1])
    return [
        some[by[len(good) :] < by[: len(good)].min() - table.teacher_margin]
        for some, good, by in zip(kept, own, scores, strict=True)
    ]


def _positives(data: BeirData, table: Mine) -> dict[str, set[str]]:
    """For each query of the split, the texts of the documents that are judged positive for it or for an equal query."""
    by_text: dict[str, set[str]] = {}
    judged = data.qrels(table.split)
    for query, grades in judged.items():
        good = {data.corpus[document] for document, grade in grades.items() if grade >= 1}
        by_text.setdefault(data.queries[query], set()).update(good)
    positives = {query: by_text[data.queries[query]] for query in judged if by_text[data.queries[query]]}
    if not positives:
        raise WrongUse(f"split '{table.split}' of {data.folder} judges no document positive; there is nothing to mine")
    return positives
