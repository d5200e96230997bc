"""A first fill by files as the tests run it, in this process or, as a program, in one that is killed on the way.

As a program: URI, folder, corpus, name, and the step (`module:Class.function`) that the process dies at the beginning
of (`<`) or the end of (`>`), the n-th time: `>2 bartizan_connector.store.milvus.bulk:MilvusLoading._import`.
"""

import os
import signal
import sys
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import Any

from bartizan_connector.store.backend import Backend
from bartizan_connector.store.collection import Collection, FieldSpec
from bartizan_connector.store.milvus import MilvusBackend
from bartizan_connector.stream.bulk import bulk
from bartizan_connector.stream.chunks import Cutter
from bartizan_connector.stream.jsonl import JsonlSource
from bartizan_connector.stream.report import Report
from bartizan_connector.stream.work import run
from bartizan_connector.testing.encoder_fake import HashEncoder
from tests.connector.stream.streams import collection_for

ENCODER = HashEncoder(dim=16)
ENCODERS = {"dense": ENCODER}
BATCH = 100


def collection_named(name: str) -> Collection:
    """One with a field of each type."""
    contract = collection_for(ENCODER.spec, name=name)
    more = (FieldSpec(name="price", type="float", default=0.5), FieldSpec(name="fresh", type="bool", default=False))
    return contract.model_copy(update={"fields": (*contract.fields, *more)})


def source_of(corpus: Path) -> JsonlSource:
    return JsonlSource(corpus, batch_size=BATCH)


def filled(backend: Backend, collection: Collection, folder: Path, corpus: Path, **more: Any) -> Report:
    """By files."""
    source = more.pop("source", None) or source_of(corpus)
    given = {"place": "here", "identity": str(corpus)} | more
    with closing(source):
        return bulk(source, ENCODERS, backend, collection, folder, **given)


def ingested(
    backend: Backend, collection: Collection, corpus: Path, *, cutter: Cutter | None = None, words: Any = None
) -> Report:
    """As usual."""
    with closing(source_of(corpus)) as source:
        return run(source, ENCODERS, backend, collection, cutter=cutter, words=words)


def _dying(where: str) -> None:
    moment, path = where.split(" ")
    module, _, qualified = path.partition(":")
    owner, _, name = qualified.rpartition(".")
    target: Any = import_module(module)
    for part in owner.split(".") if owner else ():
        target = getattr(target, part)
    call, turns = getattr(target, name), int(moment[1:])

    def deadly(*given: Any, **more: Any) -> Any:
        nonlocal turns
        turns -= 1
        if not turns and moment[0] == "<":
            os.kill(os.getpid(), signal.SIGKILL)
        answer = call(*given, **more)
        if not turns:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    setattr(target, name, deadly)


if __name__ == "__main__":
    uri, folder, corpus, name, where = sys.argv[1:]
    _dying(where)
    filled(MilvusBackend(uri), collection_named(name), Path(folder), Path(corpus))
