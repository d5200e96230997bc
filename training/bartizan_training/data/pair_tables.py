"""The tables that say where pairs of a query and a document that answers it are read from."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from bartizan_training.data.triple_tables import HeldOutTable
from bartizan_training.settings import PairsTable, Positive, RecipePath, query_files


class PairRecords(HeldOutTable):
    """Records of a query, a positive and maybe hard negatives: JSON lines, or a parquet or arrow file of `datasets`."""

    kind: Literal["records"]
    """`records`"""
    files: Annotated[tuple[RecipePath, ...], Field(min_length=1)]
    """`.jsonl`, `.parquet` or `.arrow`, one or more."""
    query: str = "query"
    """The column of the query; sentence-transformers calls it `anchor`."""
    positive: str = "positive"
    """The column of the document that answers it; records of one query are one query with several."""
    negatives: str | None = None
    """The column of a text, or of a list of texts, that do not; none: `negative` or `negatives`, where there is one."""
    id: str | None = None
    """The column of the query's id, by which queries for testing are left out besides their text."""
    sampler: Literal["pairs", "queries"] = "pairs"
    """One epoch is each pair once, or each query once with one of its documents."""
    negatives_per_query: Positive = 1
    """Hard negatives drawn for each query of a batch, when there are any."""
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Learn from this share of the queries alone; a smaller share is part of a larger one."""
    limit: Positive | None = None
    """Read only so many records."""

    def rests_on(self) -> Iterator[Path]:
        """The files, and what says which queries are for testing."""
        yield from self.files
        yield from query_files(self.held_out, self.held_out_split)


def _kind(value: Any) -> str:
    kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
    return "records" if kind == "records" else "judged"


PairSource = Annotated[
    Annotated[PairsTable, Tag("judged")] | Annotated[PairRecords, Tag("records")], Discriminator(_kind)
]
"""Judged queries of a BEIR folder, or records with `kind = "records"`."""
