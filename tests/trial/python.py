"""Wrong uses from Python, by the documented entries."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bartizan_connector import (
    Collection,
    Config,
    Documents,
    FieldSpec,
    Leg,
    MemoryBackend,
    OnnxEncoder,
    Retriever,
    TowerSpec,
)
from bartizan_connector.commands.ingest import ingest_all
from bartizan_connector.encode.settings import OnnxSettings, encoder_settings
from bartizan_connector.store.embedded import EmbeddedBackend
from bartizan_connector.store.milvus import MilvusBackend
from bartizan_connector.stream.jsonl import JsonlSource
from bartizan_encoders.local import TorchEncoder
from bartizan_encoders.tower import Tower
from bartizan_training.data.collections import BeirData
from bartizan_training.evaluate.evaluation import Evaluation
from bartizan_training.loop import train
from bartizan_training.recipe import Recipe
from bartizan_triton.export import export_tower
from tests.trial.uses import uses

Places = Mapping[str, Path]


def _search(*words: Any, **how: Any) -> Callable[[Places], Any]:
    def call(_: Places) -> Any:
        with Retriever.open("bartizan.toml") as retriever:
            return retriever.search(*words, **how)

    return call


def _closed(_: Places) -> Any:
    retriever = Retriever.open("bartizan.toml")
    retriever.close()
    return retriever.search("x")


def _encode(*words: Any, **how: Any) -> Callable[[Places], Any]:
    return lambda places: OnnxEncoder.open(places["export"]).encode(*words, **how)


def _documents(places: Places, chunks: Any) -> Any:
    with Documents.at("memory:", places["export"], chunks=chunks) as documents:
        return documents.put([{"_id": "a", "text": "x"}])


USES = [
    *(
        use
        for name, call, code, told in (
            ("Config.load({})", lambda _: Config.load({}), 2, "must be a path"),  # type: ignore[arg-type]
            ("Config.load('nowhere')", lambda _: Config.load("nowhere"), 2, "cannot read the configuration nowhere"),
            ("Retriever.open({})", lambda _: Retriever.open({}), 2, "must be a path"),  # type: ignore[arg-type]
            ("Retriever.open(None)", lambda _: Retriever.open(None), 2, "must be a path"),  # type: ignore[arg-type]
            ("Retriever.open('')", lambda _: Retriever.open(""), 2, "an empty text came"),
            ("Retriever.open('.')", lambda _: Retriever.open("."), 2, "cannot read the configuration"),
            ("OnnxEncoder.open('nowhere')", lambda _: OnnxEncoder.open("nowhere"), 2, "nowhere is not a tower"),
            ("OnnxEncoder.open(3)", lambda _: OnnxEncoder.open(3), 2, "must be a path"),  # type: ignore[arg-type]
            ("OnnxEncoder.open(a torch tower)", lambda p: OnnxEncoder.open(p["tower"]), 2, "bartizan export"),
            ("OnnxSettings().open('nowhere')", lambda _: OnnxSettings().open("nowhere"), 2, "is not a tower"),  # type: ignore[arg-type]
            ("TorchEncoder.open('nowhere')", lambda _: TorchEncoder.open("nowhere"), 2, "is not a tower"),
            ("TorchEncoder.open(an export)", lambda p: TorchEncoder.open(p["export"]), 2, "an export cannot be loaded"),
            ("Tower.load('nowhere')", lambda _: Tower.load("nowhere"), 2, "is not a tower"),
            ("TowerSpec.read('nowhere')", lambda _: TowerSpec.read("nowhere"), 2, "is not a tower"),
            ("encoder_settings({'engine': 'x'})", lambda _: encoder_settings({"engine": "x"}), 2, "unknown engine 'x'"),
            ("encoder_settings({'thread': 1})", lambda _: encoder_settings({"thread": 1}), 2, "unknown key thread"),
            ("encode(a text)", _encode("one", "query"), 2, "list|sequence"),
            ("encode([3], 'query')", _encode([3], "query"), 2, "text 0"),
            ("encode([None], 'query')", _encode([None], "query"), 2, "text 0"),
            ("encode(['a'], 'querry')", _encode(["a"], "querry"), 2, "querry"),
            ("encode(half a character)", _encode(["\ud800"], "query"), 2, "not valid Unicode"),
            ("encode(timeout=-1)", _encode(["a"], "query", timeout=-1), 4, "timeout"),
            ("search(3)", _search(3), 2, "query|text"),
            ("search(None)", _search(None), 2, "query|text"),
            ("search(b'bytes')", _search(b"x"), 2, "query|text"),
            ("search(k='3')", _search("x", k="3"), 2, "k must be a whole number"),
            ("search(k=True)", _search("x", k=True), 2, "k must be a whole number"),
            ("search(k=0)", _search("x", k=0), 2, "k = 0 is out of range"),
            ("search(filter={'year': 2})", _search("x", 3, {"year": 2}), 2, "is no part of a filter|filter must be"),
            ("search(filter=3)", _search("x", 3, 3), 2, "filter"),
            ("search(legs=['dense', 'dense'])", _search("x", legs=["dense", "dense"]), 2, "names a leg twice"),
            ("search(legs=[])", _search("x", legs=[]), 2, "leg"),
            ("search(legs=[3])", _search("x", legs=[3]), 2, "leg"),
            ("search(timeout='1')", _search("x", timeout="1"), 2, "timeout"),
            ("search(timeout=nan)", _search("x", timeout=math.nan), 2, "timeout"),
            ("search after close", _closed, 2, "this retriever is closed"),
            ("JsonlSource(None)", lambda _: JsonlSource(None), 2, "must be a path"),  # type: ignore[arg-type]
            ("JsonlSource('nowhere')", lambda _: JsonlSource("nowhere"), 2, "there is no JSON Lines file"),
            (
                "ingest_all without towers",
                lambda _: ingest_all(Config.load("bartizan.toml"), JsonlSource("nowhere")),
                2,
                "there is no",
            ),
            ("EmbeddedBackend({})", lambda _: EmbeddedBackend({}), 2, "must be a path"),  # type: ignore[arg-type]
            ("EmbeddedBackend(3).collections()", lambda _: EmbeddedBackend(3).collections(), 2, "must be a path"),  # type: ignore[arg-type]
            ("MilvusBackend({})", lambda _: MilvusBackend({}), 2, "must be|address"),  # type: ignore[arg-type]
            ("Documents.at(chunks=64)", lambda p: _documents(p, 64), 2, "chunks: must be a table, but 64 came"),
            ("Documents.at(chunks={'size': 1})", lambda p: _documents(p, {"size": 1}), 2, "unknown key chunks.size"),
            ("Documents.at(chunks=10**6 tokens)", lambda p: _documents(p, {"tokens": 10**6}), 2, "reads .* tokens"),
            ("MemoryBackend().drop('x')", lambda _: MemoryBackend().drop("x"), 2, "x"),
            ("MemoryBackend().point('x', 'y')", lambda _: MemoryBackend().point("x", "y"), 2, "no collection 'y'"),
            ("BeirData.read({})", lambda _: BeirData.read({}), 2, "must be a path"),  # type: ignore[arg-type]
            ("BeirData.read('nowhere')", lambda _: BeirData.read("nowhere"), 2, "nowhere is not a folder"),
            ("Recipe.load('nowhere')", lambda _: Recipe.load("nowhere"), 2, "cannot read the recipe"),
            ("train('recipe.toml', 'run')", lambda _: train("r.toml", "run"), 2, "Recipe"),  # type: ignore[arg-type]
            ("export_tower('nowhere', 'out')", lambda _: export_tower("nowhere", "out"), 2, "is not a tower"),
            ("export_tower(precision='fp16')", lambda p: export_tower(p["tower"], "out", "fp16"), 2, "fp16"),  # type: ignore[arg-type]
            ("Evaluation(data='nowhere')", lambda p: Evaluation(data="nowhere", tower=p["export"]).run(), 2, "nowhere"),  # type: ignore[arg-type]
            ("Evaluation(tower='nowhere')", lambda p: Evaluation(data=p["data"], tower="nowhere").run(), 2, "nowhere"),  # type: ignore[arg-type]
        )
        for use in uses("Python", (call, code, told, {"name": name}))
    ),
]
_UNUSED = (Collection, FieldSpec, Leg)
