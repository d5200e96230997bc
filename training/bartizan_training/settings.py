"""The tables that the steps of a recipe share: how long and how fast to train, what on, with which loss."""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, ValidationInfo, model_validator

from bartizan_connector.base import tables
from bartizan_encoders.hub import KNOWN

_ON_A_HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]*[A-Za-z0-9]")
"""`owner/name`; a relative path of two parts that is there goes before it."""


def _from_the_recipe(path: Path, info: ValidationInfo) -> Path:
    return Path(os.path.abspath((info.context or Path()) / path))


RecipePath = Annotated[Path, AfterValidator(_from_the_recipe)]
"""A path; a relative one is relative to the recipe's file."""


def _by_name(value: object, info: ValidationInfo) -> object:
    """A text that names a published model, and no folder beside the recipe, as the import that it stands for."""
    if not isinstance(value, str) or ((info.context or Path()) / value).exists():
        return value
    return {"source": value} if is_published(value) else value


def is_published(name: str) -> bool:
    """Whether a text names a model rather than a folder: by a short name, or as `owner/name` on the hub."""
    return name in KNOWN or bool(_ON_A_HUB.fullmatch(name))


TEST = "test"
"""Queries that this split judges are never learned from as pairs, under their own id or as an equal text."""

Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0)]


class Table(tables.Table):
    """A table of a recipe; the text below each key is its documentation."""

    model_config = ConfigDict(use_attribute_docstrings=True, allow_inf_nan=False)

    def rests_on(self) -> Iterator[Path]:
        """The files that decide what is read by this table and by those in it; each table that names data says its
        own. One that need not be there is named all the same: it may come."""
        for key in type(self).model_fields:
            value = getattr(self, key)
            for each in value if isinstance(value, tuple) else (value,):
                if isinstance(each, Table):
                    yield from each.rests_on()


def qrels_file(folder: Path, split: str) -> Path:
    """Where the judgements of a split of a BEIR folder are."""
    return folder / "qrels" / f"{split}.tsv"


def query_files(folder: Path | None, split: str) -> tuple[Path, ...]:
    """What the queries that a split of a BEIR folder judges are read from; none, without a folder."""
    return (folder / "queries.jsonl", qrels_file(folder, split)) if folder else ()


class Lora(Table):
    """Low-rank adapters of the backbone's linear layers."""

    rank: Positive
    """Rank of each adapter."""
    alpha: Annotated[float, Field(gt=0)]
    """An adapter counts alpha / rank."""
    targets: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Last parts of the names of the layers that get one, as `q_proj`; none: every linear layer."""


class Imported(Table):
    """How a model becomes a tower, as `bartizan tower import` does it; none: as published."""

    kind: Literal["dense", "sparse"] | None = None
    """What it becomes; a sparse tower weighs the terms of its language model's vocabulary."""
    pooling: Literal["cls", "mean", "last", "max", "sum"] | None = None
    """How one vector comes out of many."""
    similarity: Literal["cosine", "dot"] | None = None
    """How vectors are compared."""
    max_tokens: Positive | None = None
    """Longest text in tokens."""
    query_prefix: str | None = None
    """Put before each query."""
    document_prefix: str | None = None
    """Put before each document."""
    special_tokens: Literal["template", "none"] | None = None
    """`none`: the bare text, without a first token."""
    layers: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] | None = None
    """Only these layers, counted from 0."""
    dim: Positive | None = None
    """A dense tower gets a new linear head without bias to so many dimensions (GTR: 768), to be trained."""


class Published(Imported):
    """A published model that the run imports as its start."""

    source: Annotated[str, Field(min_length=1)]
    """`minilm`, `smollm2`, the folder of a model, a GGUF file, or a name on the hub."""


Start = Annotated[RecipePath | Published, BeforeValidator(_by_name)]
"""The folder of a tower, or a model to be imported; of a text, `minilm`, `smollm2` and `owner/name` are models."""


class EarlyStop(Table):
    """Stop training when the towers get no better on queries that are not learned from; the best weights are kept."""

    data: RecipePath
    """The BEIR folder."""
    split: str = "dev"
    """Its queries are asked: those of `qrels/<split>.tsv`, which must be no queries of the training split."""
    every: Positive
    """Optimiser steps between two judgements; the last step is judged too."""
    patience: Positive
    """Judgements in a row without gain after which training stops."""
    documents: Positive = 1000
    """Documents, drawn once, among which a query's own are looked for, beside all that the split judges."""

    def rests_on(self) -> Iterator[Path]:
        """The folder's documents, its queries and the split's judgements."""
        yield self.data / "corpus.jsonl"
        yield from query_files(self.data, self.split)


class Training(Table):
    """The keys that every step has that trains."""

    steps: Positive | None = None
    """Optimiser steps; give `steps` or `epochs`."""
    epochs: Annotated[float, Field(gt=0)] | None = None
    """Times that the examples are gone through."""
    batch_size: Positive = 32
    """Examples in one batch, over all processes; in-batch negatives come from it."""
    accumulate: Positive = 1
    """Batches that make one optimiser step."""
    learning_rate: Annotated[float, Field(gt=0)]
    """Peak learning rate."""
    optimizer: Literal["adamw", "adafactor"] = "adamw"
    """`adafactor`: a row and a column of squares in the place of two moments; the rate counts relative to a weight."""
    warmup: Share = 0.1
    """Share of the steps over which the rate rises from 0."""
    schedule: Literal["linear", "cosine"] = "linear"
    """How it falls to 0 then: in a line, or as half a cosine, slowly at both ends."""
    weight_decay: Weight = 0.01
    """Decay of the weight matrices; biases and norms have none."""
    clip: Annotated[float, Field(gt=0)] = 1.0
    """Largest norm of the gradient."""
    dropout: bool = False
    """Whether the backbone's own dropout is on."""
    freeze_embeddings: bool = False
    """Whether the backbone's token embeddings stay as they are."""
    lora: Lora | None = None
    """Train small matrices beside the backbone's own, which stay as they are; merged into them at the end."""
    gradient_checkpointing: bool = False
    """Compute each layer again for its gradient: less memory, a third more time."""
    grad_cache: Positive | None = None
    """GradCache: a batch of any size takes the memory of so many of its texts, and a third more time."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic inside the towers; losses and weights are fp32 always."""
    max_tokens: Positive | None = None
    """Cut texts here in training, where the tower's own limit is higher."""
    padded_tokens: Positive | None = None
    """Largest piece of a batch, with padding, that a tower takes at once; none: as suits the device."""
    early_stop: EarlyStop | None = None
    """Stop when the towers get no better by nDCG@10 on other queries, and take the best; `steps` are the most then."""
    limit: Positive | None = None
    """For a try-out: optimiser steps at most, and of unlabelled texts only as many as these use; `--limit` sets it."""
    log_every: Positive = 10
    """Steps between two lines of `metrics.jsonl`."""
    checkpoint_every: Positive = 500
    """Steps between two checkpoints."""

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give either steps or epochs")
        return self

    def length(self, batches_per_epoch: int) -> int:
        """How many optimiser steps the stage takes."""
        asked = self.steps
        if asked is None:
            asked = max(1, round((self.epochs or 0) * batches_per_epoch / self.accumulate))
        return asked if self.limit is None else min(asked, self.limit)


class Weak(Table):
    """Pairs that are made of documents alone."""

    titles: bool = True
    """Whether a document's title is paired with its text."""
    sentences: Annotated[int, Field(ge=0)] = 1
    """Sentences of each document, each paired with the rest of it (inverse cloze)."""
    min_words: Positive = 4
    """Shortest sentence that is drawn."""
    kept: Share = 0.1
    """Share of the sentences that stay in their document too, so that equal words count."""
    seed: Annotated[int, Field(ge=0)] = 0
    """For what is drawn."""

    @model_validator(mode="after")
    def _some_pair(self) -> Self:
        if not self.titles and not self.sentences:
            raise ValueError("titles = false and sentences = 0 make no pair at all")
        return self


class PairsTable(Table):
    """Judged queries of a BEIR folder with their positive documents."""

    path: RecipePath
    """The BEIR folder."""
    split: str = "train"
    """Judgements to learn from: `qrels/<split>.tsv`."""
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Learn from this share of the queries alone; a smaller share is part of a larger one."""
    sampler: Literal["pairs", "queries"] = "pairs"
    """One epoch is each judged pair once, or each query once with one of its documents."""
    negatives: RecipePath | None = None
    """A file of hard negatives, a line a query: `{"query": id, "negatives": [document ids]}`."""
    negatives_per_query: Positive = 1
    """Hard negatives drawn for each query of a batch, when there are any."""
    weak: Weak | None = None
    """Learn from pairs made of the folder's documents, in the place of judgements."""

    @model_validator(mode="after")
    def _weak_alone(self) -> Self:
        if self.weak and self.negatives:
            raise ValueError("weak pairs are made of documents alone: leave negatives out")
        return self

    def rests_on(self) -> Iterator[Path]:
        """The documents, the queries that are for testing, and those that are learned from."""
        yield self.path / "corpus.jsonl"
        yield from query_files(self.path, TEST)
        if not self.weak:
            yield qrels_file(self.path, self.split)
        if self.negatives:
            yield self.negatives


class Queries(Table):
    """The queries of a BEIR folder."""

    kind: Literal["queries"]
    """`queries`"""
    path: RecipePath
    """The BEIR folder."""
    split: str = "all"
    """Only queries judged in this split; `all`: every query, judged or not."""
    held_out_split: str = "test"
    """Queries that this split judges are left out, by id and by text, unless it is the one that is asked for."""

    def rests_on(self) -> Iterator[Path]:
        """The queries, and the judgements that pick some of them."""
        yield from query_files(self.path, self.held_out_split)
        if self.split != "all":
            yield qrels_file(self.path, self.split)


class Lines(Table):
    """A query log: a plain text file, one query a line; or records, in a `.jsonl`, `.parquet` or `.arrow` file."""

    kind: Literal["lines"]
    """`lines`"""
    path: RecipePath
    """The file; text is UTF-8."""
    column: str = "query"
    """Of records: the column of the query."""
    held_out: RecipePath | None = None
    """A BEIR folder whose test queries are left out, by text."""
    held_out_split: str = "test"
    """Which of its splits is for testing."""

    def rests_on(self) -> Iterator[Path]:
        """The file, and what says which queries are for testing."""
        yield self.path
        yield from query_files(self.held_out, self.held_out_split)


class Documents(Table):
    """The documents of a BEIR folder."""

    kind: Literal["documents"]
    """`documents`"""
    path: RecipePath
    """The BEIR folder."""

    def rests_on(self) -> Iterator[Path]:
        """The documents."""
        yield self.path / "corpus.jsonl"


class CorpusSentences(Table):
    """Short spans drawn from the documents of a BEIR folder, in place of queries that nobody has logged."""

    kind: Literal["corpus_sentences"]
    """`corpus_sentences`"""
    path: RecipePath
    """The BEIR folder."""
    count: Positive
    """Spans to draw; fewer come out when some are equal."""
    min_words: Positive = 3
    """Shortest span."""
    max_words: Positive = 16
    """Longest span."""

    @model_validator(mode="after")
    def _min_below_max(self) -> Self:
        if self.min_words > self.max_words:
            raise ValueError(f"min_words = {self.min_words} is above max_words = {self.max_words}")
        return self

    def rests_on(self) -> Iterator[Path]:
        """The documents."""
        yield self.path / "corpus.jsonl"


TextSource = Annotated[Queries | Documents | Lines | CorpusSentences, Field(discriminator="kind")]


class InfoNce(Table):
    """A query's own document against the other documents of the batch."""

    temperature: Annotated[float, Field(gt=0)] = 0.05
    """Scores are divided by it."""
    bidirectional: bool = False
    """Whether documents also look for their query."""
    mask_known: bool = True
    """Whether a document that is judged positive for a query, or has the text of one, is never its negative."""
    mask_margin: Weight | None = None
    """Drop a negative that scores more than this above the query's own document."""
    matryoshka: Annotated[tuple[Positive, ...], Field(min_length=1)] | None = None
    """Add the loss of vectors cut to each of these sizes, which can be used by themselves then."""
    matryoshka_weights: Annotated[tuple[Weight, ...], Field(min_length=1)] | None = None
    """Weight of each, beside 1 for whole vectors; none: 1 each."""

    @model_validator(mode="after")
    def _one_weight_each(self) -> Self:
        if self.matryoshka_weights and len(self.matryoshka_weights) != len(self.matryoshka or ()):
            raise ValueError(
                f"matryoshka_weights has {len(self.matryoshka_weights)} weights for {len(self.matryoshka or ())} sizes "
                "in matryoshka: give one for each"
            )
        return self

    @property
    def sizes(self) -> Mapping[int, float]:
        """The weight of the loss of each smaller size."""
        sizes = self.matryoshka or ()
        return dict(zip(sizes, self.matryoshka_weights or [1.0] * len(sizes), strict=True))


class Flops(Table):
    """What keeps sparse vectors sparse: the squared mean weight of each term over a batch, summed over the terms."""

    query: Weight = 0.003
    """Weight of the FLOPS of the queries."""
    document: Weight = 0.003
    """Weight of the FLOPS of the documents."""
    ramp: Share = 0.33
    """Share of the steps over which both weights rise from 0, with the square of the step; then they stay."""


class Alignment(Table):
    """The student's query vector against the teacher's."""

    w_cos: Weight = 1.0
    """Weight of 1 − cosine."""
    w_mse: Weight = 0.0
    """Weight of the squared distance."""
    mse_on: Literal["raw", "normalised"] = "raw"
    """Distance between the vectors before or after normalisation; after it, the sum is 2 (1 − cosine)."""
    mse_reduction: Literal["sum", "mean"] = "sum"
    """Over the components of a vector."""
    w_tokens: Weight = 0.0
    """Weight of 1 − cosine between hidden states, token by token; for a student with its teacher's tokens and width."""

    @model_validator(mode="after")
    def _some_weight(self) -> Self:
        if self.w_cos == self.w_mse == self.w_tokens == 0:
            raise ValueError("w_cos, w_mse and w_tokens are all 0, so that nothing would be learned")
        return self
