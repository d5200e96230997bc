"""Judging a configured collection as its users search it: every leg, fused, on the store that is there.

1 the collection must hold exactly the documents of the judged data   2 each judged query is searched by all legs
3 measure. An answer that lacks a leg is no answer of this collection: it stops the evaluation.
"""

from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from bartizan_connector.base.errors import Stop, WrongUse
from bartizan_connector.base.progress import progress
from bartizan_connector.config import Config
from bartizan_connector.config.towers import checked_pair, collection_of
from bartizan_connector.search.answer import Answer
from bartizan_connector.search.retriever import Retriever
from bartizan_connector.store.collection import Document
from bartizan_connector.stream.records import text_of
from bartizan_training.data.collections import BeirData, Qrels
from bartizan_training.evaluate.evaluation import installed
from bartizan_training.evaluate.judging import Latency
from bartizan_training.evaluate.measuring import DEPTH, measure, measures, require_relevant, without_own
from bartizan_training.evaluate.results import Result, Truncated

_NAMED = 5
"""Documents that a refusal names."""
_WARM_UP = 5


class LegTowers(BaseModel):
    """The towers of one leg."""

    model_config = ConfigDict(frozen=True)

    tower: str
    tower_id: str
    query_tower: str
    query_tower_id: str
    """The one that really encoded, by its vectors."""
    space_id: str
    engine: str


class ConfiguredResult(Result):
    """One evaluation of a configured collection. Where a result names one tower, this one names those of all legs, in
    the order of the configuration."""

    legs: dict[str, LegTowers]
    lexical: bool
    fusion: str
    weights: dict[str, float]
    of_document: str = "max"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfiguredEvaluation:
    """What is to be judged, and on what."""

    data: Path
    config: Config
    split: str = "test"
    relevant_from: int = 1
    baseline: Path | None = None
    command: str = ""

    def run(self) -> ConfiguredResult:
        """Compare the documents, search, measure, and compare with the baseline."""
        names = measures(self.relevant_from)
        baseline = Result.read(self.baseline) if self.baseline else None
        data = BeirData.read(self.data)
        qrels, digest = data.qrels(self.split), data.digest(self.split)
        require_relevant(qrels, self.relevant_from, where=f"split '{self.split}' of {self.data}")
        if baseline:
            baseline.require_same_task(
                collection=data.name,
                digest=digest,
                split=self.split,
                queries=qrels,
                measures=names,
                own_ids=len(qrels.keys() & data.corpus.keys()),
            )
        with Retriever.open(self.config) as retriever:
            require_same_documents(self.config, data)
            answers = _answers(retriever, data, qrels)
        found = {query: without_own(query, [result.id for result in answer]) for query, answer in answers.items()}
        measured = measure(qrels, found, relevant_from=self.relevant_from)
        legs = self._legs(next(iter(answers.values())))
        result = ConfiguredResult(
            collection=data.name,
            collection_digest=digest,
            split=self.split,
            relevant_from=self.relevant_from,
            engine=_joined(leg.engine for leg in legs.values()),
            threads=0,
            tower=_joined(leg.tower for leg in legs.values()),
            tower_id=_joined(leg.tower_id for leg in legs.values()),
            query_tower=_joined(leg.query_tower for leg in legs.values()),
            query_tower_id=_joined(leg.query_tower_id for leg in legs.values()),
            space_id=_joined(leg.space_id for leg in legs.values()),
            documents=len(data.corpus),
            queries=len(qrels),
            own_ids=len(qrels.keys() & data.corpus.keys()),
            truncated=Truncated(documents=None, queries=sum(answer.truncated for answer in answers.values())),
            metrics=measured.metrics,
            per_query=measured.per_query,
            latency_ms=_latency(list(answers.values())),
            command=self.command,
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            versions=installed(),
            legs=legs,
            lexical=self.config.backend.lexical is not None,
            fusion=self.config.search.fusion,
            weights=dict(self.config.search.weights),
            of_document=self.config.search.of_document,
        )
        return result.compared_with(baseline, str(self.baseline)) if baseline else result

    def _legs(self, answer: Answer) -> dict[str, LegTowers]:
        legs = {}
        for name, space in self.config.spaces.items():
            pair = checked_pair(self.config, name)
            legs[name] = LegTowers(
                tower=pair.document.name,
                tower_id=pair.document.tower_id,
                query_tower=pair.query.name,
                query_tower_id=answer.encoded[name].tower_id,
                space_id=answer.encoded[name].space_id,
                engine=self.config.encoder(space.encoder("query")).engine,
            )
        return legs


def require_same_documents(config: Config, data: BeirData) -> None:
    """Refuse a collection that does not hold exactly the documents of the judged data, with these texts."""
    missing, extra, other = set(data.corpus), [], []
    with closing(config.backend.open()) as backend, closing(backend.open(collection_of(config), create=False)) as store:
        total = store.count()
        with progress(f"{data.name}: comparing documents", total) as tick:
            for document in store.scan():
                tick(len(document.rows))
                if document.id not in missing:
                    extra.append(document.id)
                elif _text(document) != data.corpus[document.id]:
                    other.append(document.id)
                missing.discard(document.id)
    told = [
        f"{len(ids):,} {what} ({', '.join(sorted(ids)[:_NAMED])}{', …' if len(ids) > _NAMED else ''})"
        for ids, what in ((missing, "are not in it"), (extra, "are in it only"), (other, "have another text there"))
        if ids
    ]
    if told:
        raise WrongUse(
            f"collection '{config.collection.name}' does not hold the {len(data.corpus):,} documents of {data.folder}: "
            f"{'; '.join(told)}. Ingest exactly {data.folder / 'corpus.jsonl'} into a collection of its own"
        )


def _text(document: Document) -> str:
    """What was encoded of it."""
    fields = document.fields
    return text_of(str(fields.get("title", "")), str(fields.get("text", "")))


def _answers(retriever: Retriever, data: BeirData, qrels: Qrels) -> Mapping[str, Answer]:
    queries = sorted(qrels)
    for query in queries[:_WARM_UP]:
        retriever.search(data.queries[query], DEPTH)
    answers = {}
    with progress(f"{data.name}: queries", len(queries)) as tick:
        for query in queries:
            answer = retriever.search(data.queries[query], DEPTH + (query in data.corpus))
            if answer.degraded:
                raise Stop(f"query '{query}' was not answered by all legs: {answer.degraded}. Nothing was measured")
            answers[query] = answer
            tick()
    return answers


def _latency(answers: list[Answer]) -> Latency:
    encode = [answer.latency_ms.encode for answer in answers]
    search = [answer.latency_ms.total - answer.latency_ms.encode for answer in answers]
    (encode_p50, encode_p95), (search_p50, search_p95) = (
        (float(value) for value in np.quantile(times, [0.5, 0.95])) for times in (encode, search)
    )
    return Latency(
        queries=len(answers),
        encode_p50=encode_p50,
        encode_p95=encode_p95,
        search_p50=search_p50,
        search_p95=search_p95,
    )


def _joined(names: Iterable[str]) -> str:
    return " + ".join(dict.fromkeys(names))
