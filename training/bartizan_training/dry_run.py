"""A dry run: what a recipe will do, step by step, and what that will take; nothing is written.

Everything is checked as a run checks it. Numbers of texts are counted, their lengths are those of a sample under the
real tokenizer. Time is measured: some of these texts go through the real towers, forwards and backwards, on this
machine as busy as it is now. Memory is counted for weights, gradients and moments, and measured for what layers keep.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bartizan_connector.space.spec import Role
from bartizan_encoders.tower import Tower
from bartizan_training import plan
from bartizan_training.data.collections import BeirData
from bartizan_training.data.pair_tables import PairRecords
from bartizan_training.data.pairs import read_pairs
from bartizan_training.data.texts import read_texts
from bartizan_training.data.triples import read_triples
from bartizan_training.gauge import Gauge, gauge
from bartizan_training.mine.cluster import Cluster
from bartizan_training.mine.exact import Mine
from bartizan_training.recipe import AnyStep, Recipe
from bartizan_training.settings import PairsTable, Published, Training
from bartizan_training.stages.adapt import Adapt
from bartizan_training.stages.calibrate import Calibrate
from bartizan_training.stages.contrast import OnJudged
from bartizan_training.stages.contrastive import OnPairs
from bartizan_training.stages.distil_query import DistilQuery
from bartizan_training.stages.pretrain import Pretrain
from bartizan_training.stages.refine import Refine
from bartizan_training.stages.triples import FromTriples
from bartizan_training.starting import import_into, with_folders
from bartizan_training.teachers.score import Score
from bartizan_training.towers import ROLES, PlannedTower

_SAMPLE = 400
"""Texts whose lengths are taken for those of all."""


_CHARACTERS = 4
"""Of a token, about: what a tokenizer that is not there yet will make of a text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Texts that go through one tower."""

    tower: PlannedTower
    role: Role
    texts: Sequence[str]
    """All of a kind, of which a sample is tokenised."""
    times: float
    """How many texts go through the tower, all in all."""
    per_batch: float = 0.0
    """How many of them are in a batch that is learned from; 0: they are only encoded."""
    most: int | None = None
    """Longest text in training."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What one step will take."""

    name: str
    kind: str
    steps: int | None
    """Optimiser steps; None: it trains nothing."""
    examples: int
    tokens: int
    """Through the towers, without padding; those that are learned from and those that are only encoded."""
    seconds: float | None
    """None: it is not known before, as its model is made by a step before."""
    memory: int
    """Bytes."""


def forecast(recipe: Recipe) -> tuple[Forecast, ...]:
    """What each step of the recipe will do."""
    with tempfile.TemporaryDirectory(prefix="bartizan-dry-run-") as aside:
        imported: list[Published] = []

        def folder_of(published: Published) -> Path:
            if published not in imported:
                imported.append(published)
                import_into(Path(aside) / str(len(imported)), published, seed=recipe.seed)
            return Path(aside) / str(1 + imported.index(published)) / "document"

        ready = with_folders(recipe, folder_of)
        taken = plan.sources(ready)
        ready.require_paths()
        given = plan.check_towers(ready, taken)
        plan.check_data(ready, first=1, processes=1)
        gauges: dict[Path, Gauge] = {}
        found = []
        for number, (name, step) in enumerate(zip(ready.step_names, ready.steps, strict=True), start=1):
            towers = {key: given[of.step][of.part] for key, of in taken[number - 1].items() if of.part in ROLES}
            found.append(_forecast(name, step, towers, given.get(name, {}), (ready.seed, number), gauges))
        return tuple(found)


def _forecast(
    name: str,
    step: AnyStep,
    towers: Mapping[str, PlannedTower],
    gives: Mapping[str, PlannedTower],
    seed: tuple[int, int],
    gauges: dict[Path, Gauge],
) -> Forecast:
    examples, parts, steps = _work(step, towers, gives, seed)
    if isinstance(step, Training) and step.early_stop and gives:
        parts = [*parts, *_judging(step, gives, steps or 0)]
    tokens, seconds, memory = 0.0, 0.0, 0.0
    if isinstance(step, Pretrain):
        tokens = float((steps or 0) * step.accumulate * step.batch_size * step.block)
    if any(part.tower.folder is None for part in parts):  # their model is made by a step before
        parts = []
    counted: set[str] = set()
    for part in parts:
        folder = part.tower.folder
        assert folder is not None
        if folder not in gauges:
            gauges[folder] = gauge(Tower.load(folder), part.role, part.texts)
        measured = gauges[folder].with_layers(part.tower.layers)
        length = measured.mean_tokens(part.role, _some(part.texts), part.most)
        tokens += part.times * length
        trained = bool(part.per_batch) and isinstance(step, Training)
        seconds += part.times * length * (measured.seconds_trained if trained else measured.seconds_encoded)
        if part.tower.tower not in counted:
            counted.add(part.tower.tower)
            memory += measured.weights_bytes(step if trained and isinstance(step, Training) else None)
        if trained and isinstance(step, Training):
            memory += part.per_batch * length * measured.kept_bytes(step)
    return Forecast(
        name=name,
        kind=step.kind,
        steps=steps,
        examples=examples,
        tokens=round(tokens),
        seconds=seconds if parts else None,
        memory=round(memory),
    )


def _work(
    step: AnyStep, towers: Mapping[str, PlannedTower], gives: Mapping[str, PlannedTower], seed: tuple[int, int]
) -> tuple[int, list[Part], int | None]:
    """Examples, what goes through the towers, and optimiser steps."""
    match step:
        case OnJudged():
            return _judged(step, towers)
        case DistilQuery():
            texts = step.read(seed)
            steps = step.length(len(texts) // step.batch_size)
            learned = _trained(step, gives["query"], "query", texts, steps, 1)
            if step.loss.w_tokens:
                return len(texts), [learned, replace(learned, tower=towers["query"], per_batch=0.0)], steps
            once = Part(tower=towers["query"], role="query", texts=texts, times=len(texts))
            return len(texts), [learned, once], steps
        case Adapt():
            texts = read_texts(step.texts, seed=seed)
            tokens = Tower.load(_folder(towers["document"])).tokens
            mean = float(np.mean([len(text.ids) for text in tokens.encode(list(_some(texts)), "document")]))
            blocks = max(1, int(mean * len(texts) / step.block))
            steps = step.length(max(1, blocks // step.batch_size))
            part = _trained(step, towers["document"], "document", texts, steps, step.block / mean)
            return blocks, [part], steps
        case FromTriples():
            triples, tower = read_triples(step.data), step.origin(towers)
            steps = step.length(max(1, len(triples) // step.batch_size))
            query = _trained(step, tower, "query", triples.queries, steps, 1)
            document = _trained(step, tower, "document", triples.documents, steps, 2)
            parts = [replace(query, most=step.query_tokens), replace(document, most=step.document_tokens)]
            return len(triples), parts, steps
        case Calibrate():
            texts = read_texts(step.texts, seed=seed)
            looked = min(step.count, len(texts))
            return looked, [Part(tower=towers["document"], role="document", texts=texts, times=looked)], None
        case Mine():
            data = BeirData.read(step.path)
            queries = [data.queries[id] for id in data.qrels(step.split)]
            return len(queries), _encoded(towers, queries, list(data.corpus.values())), None
        case Cluster():
            triples = read_triples(step.data)
            once = Part(tower=towers["query"], role="query", texts=triples.queries, times=len(triples.queries))
            return len(triples.queries), [once], None
        case Score():
            return len(read_triples(step.data)), [], None
        case Pretrain():
            blocks = max(1, sum(map(len, read_texts(step.texts, seed=seed))) // (_CHARACTERS * step.block))
            return blocks, [], step.length(max(1, blocks // step.batch_size))


def _judged(step: OnJudged, towers: Mapping[str, PlannedTower]) -> tuple[int, list[Part], int]:
    pairs = read_pairs(step.data)
    examples = len(pairs.queries) if step.data.sampler == "queries" else sum(map(len, pairs.positives))
    steps = step.length(max(1, examples // step.batch_size))
    documents = 1 + (step.data.negatives_per_query if _has_negatives(step, step.data) else 0)
    query = _trained(step, towers["query"], "query", pairs.queries, steps, 1)
    if isinstance(step, OnPairs):
        document = _trained(step, towers["document"], "document", pairs.documents, steps, documents)
        return examples, [query, document], steps
    assert isinstance(step, Refine)
    once = Part(tower=towers["document"], role="document", texts=pairs.documents, times=len(pairs.documents))
    return examples, [query, once], steps


def _has_negatives(step: OnJudged, data: PairsTable | PairRecords) -> bool:
    return bool(step.negatives or data.negatives)


def _trained(step: Training, tower: PlannedTower, role: Role, texts: Sequence[str], steps: int, each: float) -> Part:
    """`each` texts of every example of every batch."""
    per_batch = step.batch_size * each
    times = steps * step.accumulate * per_batch
    return Part(tower=tower, role=role, texts=texts, times=times, per_batch=per_batch, most=step.max_tokens)


def _encoded(towers: Mapping[str, PlannedTower], queries: Sequence[str], documents: Sequence[str]) -> list[Part]:
    return [
        Part(tower=towers["query"], role="query", texts=queries, times=len(queries)),
        Part(tower=towers["document"], role="document", texts=documents, times=len(documents)),
    ]


def _judging(step: Training, gives: Mapping[str, PlannedTower], steps: int) -> list[Part]:
    """What an early stop encodes, if it never stops."""
    rule = step.early_stop
    assert rule
    data = BeirData.read(rule.data)
    qrels = data.qrels(rule.split)
    documents = list(data.corpus.values())
    times = -(-steps // rule.every)
    pool = min(len(documents), rule.documents + len({id for grades in qrels.values() for id in grades}))
    query, document = _encoded(gives, [data.queries[id] for id in qrels], documents)
    frozen = isinstance(step, DistilQuery | Refine)
    return [replace(query, times=times * query.times), replace(document, times=pool * (1 if frozen else times))]


def _some(texts: Sequence[str]) -> Sequence[str]:
    """A sample, evenly out of all."""
    return texts[:: max(1, len(texts) // _SAMPLE)][:_SAMPLE]


def _folder(tower: PlannedTower) -> Path:
    assert tower.folder is not None
    return tower.folder
