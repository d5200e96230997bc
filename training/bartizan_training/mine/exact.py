"""Hard negatives by exact search: what the document tower places nearest to a query and nobody judged positive."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.store import exact
from bartizan_training.artefacts import Kind
from bartizan_training.data.collections import BeirData
from bartizan_training.data.negatives import NEGATIVES_FILE, write_negatives
from bartizan_training.frozen import Frozen, freeze
from bartizan_training.settings import Positive, RecipePath
from bartizan_training.step import FromTowers, MakingStep, Place, Taken, under_key
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
    max_tokens: Positive | None = None
    """Cut texts here to rank them, where the tower's own limit is higher."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic inside the towers."""

    gives: ClassVar[Kind] = "negatives"

    @model_validator(mode="after")
    def _some_left(self) -> Self:
        if self.skip >= self.depth:
            raise ValueError(f"skip = {self.skip} leaves none of the depth = {self.depth} documents")
        return self

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
        """Rank all documents for each query, and take those between `skip` and `depth` that are no positives."""
        data = BeirData.read(self.path)
        positives = _positives(data, self)
        start = Towers.load(taken["document"], taken["query"])
        first_ids: dict[str, str] = {}
        for id in sorted(data.corpus):
            first_ids.setdefault(data.corpus[id], id)  # equal texts are one document
        asked = tuple(data.queries[query] for query in positives)
        how = {"precision": self.precision, "max_tokens": self.max_tokens}
        documents = freeze(Frozen(tower=start.document, role="document", texts=tuple(first_ids), **how), place)
        queries = freeze(Frozen(tower=start.query, role="query", texts=asked, **how), place)
        if place.accelerator.is_main_process:
            most = max(map(len, positives.values()))
            ranked, _ = exact.top_k(queries.values, documents.values, self.depth + most)
            texts, ids = list(first_ids), list(first_ids.values())
            mined = {
                query: [ids[n] for n in row if texts[n] not in good][self.skip : self.depth]
                for (query, good), row in zip(positives.items(), ranked, strict=True)
            }
            write_negatives(folder / NEGATIVES_FILE, mined)


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
