"""The tables that say where triples of query, better and worse document are read from."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from bartizan_training.settings import Positive, RecipePath, Table, qrels_file, query_files


class Judged(Table):
    """The judged queries of a BEIR folder: each positive document beside documents that do not answer the query."""

    kind: Literal["judged"]
    """`judged`"""
    path: RecipePath
    """The BEIR folder."""
    split: str = "train"
    """Judgements to learn from: `qrels/<split>.tsv`."""
    negatives: RecipePath | None = None
    """A file of hard negatives, a line a query: `{"query": id, "negatives": [document ids]}`."""
    negatives_per_query: Positive = 8
    """Negatives of each query, the first of its hard ones; where they are too few, random documents are added."""
    seed: Annotated[int, Field(ge=0)] = 0
    """For the random documents."""
    held_out_split: str = "test"
    """Queries of this split of the folder are left out, by id and by text."""

    def rests_on(self) -> Iterator[Path]:
        """The documents and the queries, those that are for testing too."""
        yield self.path / "corpus.jsonl"
        yield from query_files(self.path, self.split)
        yield qrels_file(self.path, self.held_out_split)
        if self.negatives:
            yield self.negatives


class HeldOutTable(Table):
    """What keeps a file's triples apart from the queries that are for testing."""

    held_out: RecipePath | None = None
    """A BEIR folder whose test queries are left out, by id and by text."""
    held_out_split: str = "test"
    """Which of its splits is for testing."""


class TripleLines(HeldOutTable):
    """Lines of MS MARCO: `query ⇥ positive ⇥ negative`, as texts or as ids; or with a teacher's scores in front."""

    kind: Literal["tsv"]
    """`tsv`"""
    file: RecipePath | None = None
    """`pos_score neg_score qid pos_pid neg_pid`, or `qid pos_pid neg_pid`, or texts; none: `triples.tsv` in `path`."""
    path: RecipePath | None = None
    """The BEIR folder that the ids are of; unless `held_out` says otherwise, its test queries are left out."""
    queries: RecipePath | None = None
    """In place of a BEIR folder: lines of `qid ⇥ text`."""
    collection: RecipePath | None = None
    """In place of a BEIR folder: lines of `pid ⇥ text`."""
    limit: Positive | None = None
    """Read only so many lines."""

    @model_validator(mode="after")
    def _one_source_of_texts(self) -> Self:
        if (self.queries is None) != (self.collection is None):
            raise ValueError("queries and collection belong together: give both, or path, or neither for texts")
        if self.path is not None and self.queries is not None:
            raise ValueError("give either path or queries and collection")
        if self.path is None and self.file is None:
            raise ValueError("give file, or path to a BEIR folder that has a triples.tsv")
        return self

    @property
    def lines(self) -> Path:
        """The file of triples."""
        assert self.path or self.file  # the validator's
        return self.file or self.path / "triples.tsv"  # type: ignore[operator]

    def rests_on(self) -> Iterator[Path]:
        """The triples, the texts of their ids, and what says which queries are for testing."""
        yield self.lines
        if self.path:
            yield from (self.path / "corpus.jsonl", self.path / "queries.jsonl")
        yield from (path for path in (self.queries, self.collection) if path)
        yield from query_files(self.held_out or self.path, self.held_out_split)


class Records(HeldOutTable):
    """Records of a query, a positive and maybe negatives: JSON lines, or a parquet or arrow file of `datasets`."""

    kind: Literal["records"]
    """`records`"""
    files: Annotated[tuple[RecipePath, ...], Field(min_length=1)]
    """`.jsonl`, `.parquet` or `.arrow`, one or more."""
    query: str = "query"
    """The column of the query; sentence-transformers calls it `anchor`."""
    positive: str = "positive"
    """The column of the document that answers it."""
    negatives: str | None = None
    """The column of a text, or of a list of texts, that do not; none: `negative` or `negatives`, where there is one."""
    negatives_per_query: Positive = 8
    """Random documents of the file for a record without negatives."""
    seed: Annotated[int, Field(ge=0)] = 0
    """For the random documents."""
    limit: Positive | None = None
    """Read only so many records."""

    def rests_on(self) -> Iterator[Path]:
        """The files, and what says which queries are for testing."""
        yield from self.files
        yield from query_files(self.held_out, self.held_out_split)


TripleSource = Annotated[Judged | TripleLines | Records, Field(discriminator="kind")]
