"""The first fill of a collection on a server that imports files; it is there in one step, or it is not.

1 encode   the pipeline fills a stage (`stage.py`), as it would fill the collection
2 load     files of the stage go into a collection without a name, which is verified and indexed (`Loading`)
3 words    the word index follows what was loaded
4 name     the collection gets its name, unless another has taken it

Killed in 1, what was encoded is kept, and the next run goes on there. Killed in 2 or 3, the next run drops what has no
name, and loads again. Killed after 4, the next run finds it done. Never does a row stand twice, as each load is into a
collection of its own, nor is one lost, as the stage is given up only once the name stands for what was verified.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

from bartizan_connector.base.errors import BartizanError, Stop, WrongUse
from bartizan_connector.encode.encoder import Encoder
from bartizan_connector.store.backend import Backend, Loading, Loads, Store
from bartizan_connector.store.collection import Collection, Head
from bartizan_connector.stream.patience import Patience, Waiting
from bartizan_connector.stream.reembed.heads import heads_of
from bartizan_connector.stream.report import Report
from bartizan_connector.stream.source import Source
from bartizan_connector.stream.stage import Stage
from bartizan_connector.stream.towers import check_towers
from bartizan_connector.stream.words import Words, agree, follow
from bartizan_connector.stream.work import fill, run

log = logging.getLogger(__name__)


def loading_of(backend: Backend, collection: Collection, folder: Path) -> Loading:
    """How the back-end loads it out of that folder; WrongUse where it cannot."""
    if not isinstance(backend, Loads):
        raise WrongUse("--bulk is for a Milvus server, which imports files: leave it out, or give [backend] uri one")
    if not folder.is_dir():
        raise WrongUse(f"there is no folder {folder}; --bulk takes one that the Milvus server sees by the same path")
    return backend.loading(collection)


def bulk(
    source: Source,
    encoders: Mapping[str, Encoder],
    backend: Backend,
    collection: Collection,
    folder: Path,
    *,
    place: str,
    identity: str | None = None,
    words: Words | None = None,
    patience: Patience | None = None,
    stop: Event | None = None,
    on_rows: Callable[[int, int], None] | None = None,
    **how: Any,
) -> Report:
    """Fill a collection that is not there yet. `place`: the back-end's address; `identity`: which source it is, where
    it can be read again; both say which stage is gone on with. `on_rows` hears of rows that the indexes cover, of all;
    the rest is as of `run`."""
    check_towers(encoders, collection)
    loading = loading_of(backend, collection, folder)
    stage = Stage(folder, collection, place, identity)
    with stage.opened(loading.refuse_own) as staged:
        standing = loading.standing()
        is_ours = standing is not None and standing in stage.made
        if standing is None or is_ours:  # else what was made here may stand under another's name soon, or did
            _clear_up(backend, loading, stage)
        report = Report()
        if standing is None:
            try:
                loading.try_out(stage.folder, stage.note)
            except Stop:
                stage.is_useless = not any(heads_of(staged))
                raise
            report = fill(staged, source, encoders, patience=patience, stop=stop, **how)
            if stop is not None and stop.is_set() and not source.ended:
                raise Stop(
                    f"told to stop before all was encoded, so nothing of '{collection.name}' is visible; what was "
                    "encoded is kept, and the same command goes on from there"
                )
            begun = time.perf_counter()
            _load(backend, loading, stage, staged, words, patience, on_rows)
            took = time.perf_counter() - begun
            report = replace(report, stages={**report.stages, "load": took}, seconds=report.seconds + took)
    if standing is None or is_ours or not stage.made:
        stage.discard()
    if standing is not None and not is_ours:
        raise WrongUse(
            f"collection '{collection.name}' is at {place} already, and --bulk is for the first fill only: leave it "
            "out, and a plain ingest brings the collection up to date"
        )
    if is_ours:  # by a run that was killed before it could say so
        return run(source, encoders, backend, collection, words=words, patience=patience, stop=stop, **how)
    return report


def _clear_up(backend: Backend, loading: Loading, stage: Stage) -> None:
    """Take away what an earlier run was killed over: what it made and gave no name."""
    named = set(backend.aliases().values())
    for physical in stage.made:
        if physical not in named:
            log.info("dropping %s, which an earlier run made and did not come to name", physical)
            if loading.drop(physical):
                stage.forget(physical)
    stage.clear()


def _load(
    backend: Backend,
    loading: Loading,
    stage: Stage,
    staged: Store,
    words: Words | None,
    patience: Patience | None,
    on_rows: Callable[[int, int], None] | None,
) -> None:
    """What is staged becomes the collection."""
    contract = staged.collection
    try:
        physical = loading.load(stage.folder, staged.scan(vectors=True), _deleted(staged), stage.note, on_rows)
    finally:
        if stage.is_ours:
            stage.clear()
    try:
        with closing(backend.open(contract, create=False, name=physical)) as store:
            store.claim()  # what stands there when it is closed is written down for verification, as after any run
            for remark in store.remarks:
                log.warning("%s", remark)
            if words is not None:
                _fill_words(words, store, staged, Waiting(patience or Patience(), Event()))
        stage.require_ours()
    except BaseException:
        with suppress(BartizanError):
            backend.drop(physical)
        raise
    if not loading.give_name(physical):
        backend.drop(physical)
        raise Stop(
            f"another has made collection '{contract.name}' meanwhile, so what was loaded was taken away again; a "
            "plain ingest, without --bulk, brings that one up to date"
        )


def _deleted(store: Store) -> Iterator[Head]:
    return (head for page in heads_of(store) for head in page if head.deleted)


def _fill_words(words: Words, store: Store, staged: Store, waiting: Waiting) -> None:
    """The words become those of what was loaded; it is read from the stage, which holds the same and is nearer."""
    agree(words, store, waiting)
    for page in heads_of(staged):
        hashes = {head.id: head.hash for head in page if not head.deleted}
        if lacking := _lacking(words, hashes, waiting):
            follow(words, staged, lacking, waiting)


def _lacking(words: Words, hashes: Mapping[str, str], waiting: Waiting) -> list[str]:
    held = waiting(lambda: words.hashes(list(hashes)))
    return [id for id, hash in hashes.items() if held.get(id) != hash]
