"""The first fill of a collection on a server that imports files; it is there in one step, or it is not.

1 encode   the pipeline fills a stage (`stage.py`), as it would fill the collection; what an earlier run encoded serves
           it, but is part of the fill only where this one comes to it too (`staged.py`)
2 load     files of the stage go into a collection without a name, which is verified and indexed (`Loading`)
3 words    the word index follows what was loaded
4 name     the collection gets its name, unless another has taken it

Killed in 1, what was encoded is kept, and the next run goes on there. Killed in 2 or 3, the next run drops what has no
name, and loads again; told to stop there (SIGTERM, Ctrl-C), this one drops it, if the server lets it. Killed after 4,
the next run finds it done. Never does a row stand twice, as each load is into a collection of its own, nor is one lost,
as the stage is given up only once the name stands for what was verified.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any, NoReturn, cast

from bartizan_connector.base.errors import BartizanError, Interrupted, Stop, WrongUse
from bartizan_connector.encode.encoder import Encoder
from bartizan_connector.store.backend import Backend, Loading, Loads, Store
from bartizan_connector.store.collection import Collection
from bartizan_connector.stream.patience import Halted, Patience, Waiting
from bartizan_connector.stream.report import Report, verdict
from bartizan_connector.stream.source import Lasting, Source
from bartizan_connector.stream.stage import Stage, ToldToStop
from bartizan_connector.stream.staged import Staged
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
    stage = Stage(folder, collection, place, identity, stop)
    with stage.opened(loading.refuse_own) as staged:
        for remark in _remarks(stage, collection.name):
            log.warning("%s", remark)
        made, standing = stage.made, loading.standing()
        if standing is None:
            with _told_if_broken_off(stage, staged, "before all was encoded"):
                _clear_up(backend, loading, stage)
                loading.try_out(stage.folder, stage)
                state = _state_of(source)
                goes_on = stage.begin(staged, state)
                report = fill(cast(Store, staged), source, encoders, patience=patience, stop=stop, **how)
                if stop is not None and stop.is_set() and not source.ended:
                    raise ToldToStop("told to stop")
            if goes_on and _state_of(source) != state:
                raise Stop(
                    "the source was changed while it was read, so that it may not hold any more what an earlier run "
                    "encoded; nothing was loaded. Run again: what is the same is not encoded again"
                )
            _require_any(report, source, collection.name)
            begun = time.perf_counter()
            with _told_if_broken_off(stage, staged, "before all was loaded"):
                waiting = Waiting(patience or Patience(), stop or Event())
                physical = _loaded(backend, loading, stage, staged, words, waiting, on_rows)
            _give_name(backend, loading, stage, physical, collection.name)
            took = time.perf_counter() - begun
            report = replace(report, stages={**report.stages, "load": took}, seconds=report.seconds + took)
        elif standing not in made:
            _refuse_standing(stage, staged, collection.name, place)
        _finish(backend, loading, stage)
    if standing is not None:  # named by a run that was killed before it could say so
        return run(source, encoders, backend, collection, words=words, patience=patience, stop=stop, **how)
    return report


def _state_of(source: Source) -> str | None:
    return source.state if isinstance(source, Lasting) else None


def _remarks(stage: Stage, name: str) -> Iterator[str]:
    """What else is in the folder, of which nobody would hear."""
    for other in stage.others():
        yield (
            f"{other} is of another first fill of '{name}', with another tower, field, source or address, and is left "
            "as it is. If that fill is neither going on nor wanted any more, drop the collections on the server that "
            "its made.json names, if there is one, as far as they have no alias, then remove the folder"
        )


def _refuse_standing(stage: Stage, staged: Staged, name: str, place: str) -> NoReturn:
    kept = _made_before(stage) if stage.made else f". What was encoded for it is in {stage.folder}; remove that folder"
    raise WrongUse(
        f"collection '{name}' is at {place} already, and --bulk is for the first fill only: leave it out, and a plain "
        f"ingest brings the collection up to date{kept if stage.made or staged.holds_any else ''}"
    )


def _made_before(stage: Stage) -> str:
    """For who is refused: what an earlier run made is left, as it may be somebody's, or become it."""
    if not stage.made:
        return ""
    return (
        f". What earlier runs made ({', '.join(stage.made)}) is left: drop by a client of the server what has no alias "
        f"there and is not wanted, then remove {stage.folder}"
    )


@contextmanager
def _told_if_broken_off(stage: Stage, staged: Staged, when: str) -> Iterator[None]:
    """Whoever breaks it off is told what is left where, and how to go on."""
    try:
        yield
    except (KeyboardInterrupt, ToldToStop) as error:
        is_kept = staged.holds_any
        told = f"{when}, so nothing of it is visible; " + (
            f"what was encoded is kept in {stage.folder}, and the same command goes on from there"
            if is_kept
            else "nothing was encoded yet, and the same command begins again"
        )
        if stage.made:
            told += f", once it has taken away what the server could not let go of yet ({', '.join(stage.made)})"
        if isinstance(error, ToldToStop):
            raise Stop(f"told to stop {told}") from error
        raise Interrupted(f"interrupted {told}") from error


def _clear_up(backend: Backend, loading: Loading, stage: Stage) -> None:
    """Take away what was made and got no name."""
    named = set(backend.aliases().values())
    for physical in stage.made:
        if physical not in named:
            log.info("dropping %s, which was made and did not come to be named", physical)
            if loading.drop(physical, stage):
                stage.forget(physical)
    stage.clear()


def _require_any(report: Report, source: Source, name: str) -> None:
    """Refuse a source of which nothing can be stored, before anything of it has a name."""
    if not report.read:
        raise Stop(f"the source holds nothing; so nothing was loaded, and there is no collection '{name}'")
    if report.dead == report.read:
        raise Stop(
            f"{verdict(report, source) or 'every message was refused'}; so nothing was loaded, and there is no "
            f"collection '{name}'. All reasons are in {source.dead_letters}: mend the lines and run again"
        )


def _loaded(
    backend: Backend,
    loading: Loading,
    stage: Stage,
    staged: Staged,
    words: Words | None,
    waiting: Waiting,
    on_rows: Callable[[int, int], None] | None,
) -> str:
    """What is staged becomes a collection that lacks but its name."""
    staged.sweep()
    contract = staged.collection
    deleted = (head for page in staged.told(deleted=True) for head in page)
    try:
        physical = loading.load(stage.folder, staged.scan(vectors=True), deleted, stage, on_rows)
    finally:
        if stage.is_ours:
            stage.clear()
    try:
        with closing(backend.open(contract, create=False, name=physical)) as store:
            store.claim()  # what stands there when it is closed is written down for verification, as after any run
            for remark in store.remarks:
                log.warning("%s", remark)
            if words is not None:
                _fill_words(words, store, stage, staged, waiting)
        stage.heed()
    except BaseException:
        with suppress(BartizanError):
            _take_away(backend, stage, physical)
        raise
    return physical


def _give_name(backend: Backend, loading: Loading, stage: Stage, physical: str, name: str) -> None:
    """In one step it is there, unless another was faster."""
    if not loading.give_name(physical):
        with suppress(BartizanError):
            _take_away(backend, stage, physical)
        if not stage.made:
            stage.finish()
        raise Stop(
            f"another has made collection '{name}' meanwhile, so what was loaded was taken away again; a plain ingest, "
            f"without --bulk, brings that one up to date{_made_before(stage)}"
        )


def _take_away(backend: Backend, stage: Stage, physical: str) -> None:
    backend.drop(physical)
    stage.forget(physical)


def _finish(backend: Backend, loading: Loading, stage: Stage) -> None:
    """The stage goes, unless something without a name is left that nobody would know of any more."""
    try:
        if len(stage.made) > 1:  # more than what has the name
            _clear_up(backend, loading, stage)
    except BartizanError as error:
        log.warning(
            "what was made without a name is still on the server (%s): %s. The same command takes it away",
            ", ".join(stage.made),
            error,
        )
    else:
        stage.finish()


def _fill_words(words: Words, store: Store, stage: Stage, staged: Staged, waiting: Waiting) -> None:
    """The words become those of what was loaded; it is read from the stage, which holds the same and is nearer."""
    try:
        agree(words, store, waiting)
        for page in staged.told(deleted=False):
            stage.heed()
            if lacking := _lacking(words, {head.id: head.hash for head in page}, waiting):
                follow(words, cast(Store, staged), lacking, waiting)
    except Halted:
        raise ToldToStop("told to stop") from None


def _lacking(words: Words, hashes: Mapping[str, str], waiting: Waiting) -> list[str]:
    held = waiting(lambda: words.hashes(list(hashes)))
    return [id for id, hash in hashes.items() if held.get(id) != hash]
