"""`bartizan ingest`: brings the configured collection up to what the source says."""

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict
from functools import partial
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated

import typer

from bartizan_connector.base.address import without_password
from bartizan_connector.base.console import counted, err, out
from bartizan_connector.base.errors import Stop, WrongUse, interruptible
from bartizan_connector.base.stopping import told_to_stop
from bartizan_connector.commands.watching import shown, told
from bartizan_connector.config import Config
from bartizan_connector.config.kafka import KafkaSettings
from bartizan_connector.config.settings import is_address

if TYPE_CHECKING:
    from bartizan_connector.stream.report import Report
    from bartizan_connector.stream.source import Source

COUNTS = {
    "written": "new or changed, encoded and stored",
    "unchanged": "stored already with this content",
    "deleted": "removed, and remembered as removed",
    "stale": "older than what is stored",
    "dead": "cannot be stored, set aside with the reason",
    "dropped": "read again, here or by another reader",
}
_WAY_ON = (
    "what was committed is stored. Run the same command again: it completes what was begun, and what is stored is not "
    "encoded again"
)


_Bulk = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="First fill on a Milvus server, by files that it too sees in this folder."),
]
_Listen = Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Tell metrics and health there meanwhile.")]


def ingest(
    config: Annotated[Path, typer.Argument(help="The configuration file.")] = Path("bartizan.toml"),
    stream: Annotated[
        str | None, typer.Argument(metavar="[-]", help="- reads JSON lines from standard input instead of [source].")
    ] = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="Then remove the documents that the source does not hold any more.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Prune though lines were set aside, or the source is empty.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 when a line had to be set aside.")] = False,
    reindex: Annotated[
        bool, typer.Option("--reindex", help="First build the indexes anew, as [backend] index asks now.")
    ] = False,
    follow: Annotated[
        bool, typer.Option("--follow", help="A topic: go on until told to stop; without either, this is what is done.")
    ] = False,
    until_caught_up: Annotated[
        bool, typer.Option("--until-caught-up", help="A topic: end when what is there now has been read.")
    ] = False,
    bulk: _Bulk = None,
    listen: _Listen = None,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Stream the documents of [source] into the collection: read, skip what is there, encode, write.

    A document is one JSON line: {"_id": "a", "title": "…", "text": "…"} and the fields that [collection] declares;
    {"_id": "a", "_deleted": true} removes it. Run it again whenever the files change: what is stored already is not
    encoded again, and a run that was killed goes on where it stopped. A line that cannot be stored is set aside in the
    dead-letter file with its position and the reason, and the rest goes on. One run at a time may write a collection.

    `bartizan ingest -` reads standard input, and `--prune` takes what the source holds for all that shall be stored.

    --bulk FOLDER is for a collection that is not there yet: all is encoded first, into files of that folder, which a
    Milvus server with local storage then imports; the collection is there, whole and indexed, at the end.

    A topic ([source] kind = "kafka") is followed: SIGTERM ends the worker once what is in flight is committed. Workers
    of one group share its partitions. What is away is waited for, however long. --listen 127.0.0.1:9095 (or [ingest]
    listen) answers /metrics, /healthz and /readyz.
    """
    _refuse_one_of(follow=follow, until_caught_up=until_caught_up, bulk=bulk is not None, reindex=reindex)
    _refuse_alone(prune=prune, force=force, listen=listen)
    following = True if follow else False if until_caught_up else None
    settings, source = _opened(config, stream, prune=prune, bulk=bulk is not None, follow=following)
    settings = _listening(settings, listen)
    if settings.ingest.nice:
        os.nice(settings.ingest.nice)  # before the towers begin threads, which inherit it
    endless = isinstance(settings.source, KafkaSettings) and stream is None and not until_caught_up
    held: set[str] = set()
    with interruptible(_WAY_ON), told_to_stop() as stop:
        on_ids = held.update if prune else None
        report = ingest_all(settings, source, reindex=reindex, on_ids=on_ids, stop=stop, endless=endless, bulk=bulk)
    pruned, failure = _pruned(settings, source, report, held, force=force) if prune else (None, None)
    if json:
        _tell_json(report, source, settings, {"pruned": pruned} if prune else {})
    else:
        _tell(report, pruned)
    _remark(report, source)
    _conclude(report, source, settings, failure, strict=strict, endless=endless)


def _opened(
    config: Path, stream: str | None, *, prune: bool, bulk: bool, follow: bool | None
) -> "tuple[Config, Source]":
    """The configuration, and its source or standard input; `ingest -` takes the configuration that is here."""
    from bartizan_connector.stream.sources import open_source, open_standard_input

    if str(config) == "-":
        config, stream = Path("bartizan.toml"), "-"
    if stream not in (None, "-"):
        raise WrongUse(f"expected - for standard input, but {stream!r:.80} came; files stand under [source] path")
    settings = Config.load(config)
    if stream is None:
        if prune and isinstance(settings.source, KafkaSettings):
            raise WrongUse("--prune is for files, which tell all documents at every reading; a topic tells changes")
        if bulk and isinstance(settings.source, KafkaSettings):
            raise WrongUse("--bulk is for files, which are read again after a kill; a topic is ingested without it")
        return settings, open_source(settings, follow=follow)
    if follow:
        raise WrongUse("standard input ends by itself: leave --follow out, or read a topic")
    return settings, open_standard_input(settings)


def _refuse_one_of(*, follow: bool, until_caught_up: bool, bulk: bool, reindex: bool) -> None:
    if follow and until_caught_up:
        raise WrongUse("--follow goes on and --until-caught-up ends: give one of them")
    if bulk and reindex:
        raise WrongUse("--reindex builds the indexes of a collection that is there, --bulk fills a new one: give one")


def _refuse_alone(*, prune: bool, force: bool, listen: str | None) -> None:
    if force and not prune:
        raise WrongUse("--force is about --prune; give both, or none")
    if listen is not None and not is_address(listen):
        raise WrongUse(f"--listen takes host:port, such as 127.0.0.1:9095, but {listen!r:.80} came")


def _listening(settings: Config, listen: str | None) -> Config:
    """The same with that address, if one is given."""
    if listen is None:
        return settings
    return settings.model_copy(update={"ingest": settings.ingest.model_copy(update={"listen": listen})})


def _conclude(
    report: "Report", source: "Source", settings: Config, failure: Stop | None, *, strict: bool, endless: bool
) -> None:
    """End with the exit code that the run deserves. What a source that is followed gave so far says nothing of it."""
    from bartizan_connector.stream.report import verdict

    if failure is not None:
        raise failure
    if not endless and (wrong := verdict(report, source)):
        raise Stop(wrong)
    failed = report.too_many_missed(settings.ingest.fail_above)
    if failed:
        err.print(
            f"failed: {report.stale + report.dead:,} of {report.read:,} lines were stale or dead, which is more than "
            f"[ingest] fail_above = {settings.ingest.fail_above:g} allows; what could be stored is stored. Mend the "
            "lines or their versions as said above and run again; or, if it has to be so, set fail_above = 1",
            markup=False,
            style="red",
        )
    if failed or (strict and report.dead):
        raise typer.Exit(1)


def _tell_json(report: "Report", source: "Source", settings: Config, more: Mapping[str, object]) -> None:
    letters = source.dead_letters if report.dead else None
    out.print_json(data={"collection": settings.collection.name, **asdict(report), "dead_letters": letters, **more})


def _tell(report: "Report", pruned: int | None) -> None:
    """What became of the lines, one count a line."""
    for name, meaning in COUNTS.items():
        if name != "dropped" or report.dropped:
            out.print(f"{getattr(report, name):>12,}  {name:<10} {meaning}", markup=False)
    if pruned is not None:
        out.print(f"{pruned:>12,}  pruned     not in the source any more, removed", markup=False)
    stages = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in report.stages.items())
    took = f" in {report.seconds:.1f} s ({stages})" if stages else ""
    out.print(f"{report.read:>12,}  read{took}", markup=False)


def ingest_all(
    config: Config,
    source: "Source",
    *,
    reindex: bool = False,
    on_ids: Callable[[Sequence[str]], None] | None = None,
    stop: Event | None = None,
    endless: bool = False,
    bulk: Path | None = None,
) -> "Report":
    """Open what the configuration names, and run the source through it with a progress bar; the source is closed.
    `on_ids` gets the ids of the documents of each batch once it is committed; when `stop` is set, what is in flight is
    committed and the run ends. `endless`: what becomes unreachable is waited for until it is back. `bulk`: fill the
    collection for the first time, by files in that folder."""
    from bartizan_connector.config.towers import collection_of, open_encoders
    from bartizan_connector.search.configured import open_words
    from bartizan_connector.stream.bulk import loading_of
    from bartizan_connector.stream.chunks import Cutter
    from bartizan_connector.stream.patience import ENDLESS
    from bartizan_connector.stream.work import run

    with ExitStack() as opened:
        opened.enter_context(closing(source))
        collection = collection_of(config)
        cutter = Cutter.of(config)
        backend = opened.enter_context(closing(config.backend.open()))
        if bulk is not None:
            loading_of(backend, collection, bulk)
        encoders = open_encoders(config, "document")
        for encoder in encoders.values():
            opened.enter_context(closing(encoder))
        if reindex:
            with closing(backend.open(collection)) as store:
                store.reindex()
        words = open_words(config)
        if words is not None:
            opened.enter_context(closing(words))
        watch = opened.enter_context(told(config.ingest.listen, collection, source))
        with shown(collection, source) as tick:
            going = run if bulk is None else _in_bulk(config, source, bulk, tick)
            return going(
                source,
                encoders,
                backend,
                collection,
                words=words,
                cutter=cutter,
                on_batch=lambda share: tick(share.read),
                on_ids=on_ids,
                watch=watch,
                batch_seconds=config.ingest.batch_seconds,
                patience=ENDLESS if endless else None,
                stop=stop,
            )


def _in_bulk(
    config: Config, source: "Source", folder: Path, tick: Callable[[int, str], None]
) -> "Callable[..., Report]":
    """The same run, by files in that folder."""
    from bartizan_connector.stream.bulk import bulk
    from bartizan_connector.stream.jsonl import JsonlSource

    return partial(
        bulk,
        folder=folder,
        place=without_password(config.backend.uri),
        identity=source.identity if isinstance(source, JsonlSource) else None,
        on_rows=lambda covered, rows: tick(0, f"index: {covered:,} of {rows:,} rows"),
    )


def _pruned(
    config: Config, source: "Source", report: "Report", held: Collection[str], *, force: bool
) -> tuple[int | None, Stop | None]:
    """How many documents went because the source does not hold them; or why none did."""
    from bartizan_connector.documents.documents import Documents

    if not source.ended:
        return None, Stop("nothing was pruned: the source was not read to its end. Run the same command again")
    doubt = None
    if report.dead:
        doubt = f"{report.dead:,} lines could not be stored, so what the source holds is not known"
    elif not held:
        doubt = "the source holds no document, so all would go"
    if doubt and not force:
        why = f"nothing was pruned: {doubt}. Mend that and run again, or add --force if it is meant"
        return None, Stop(why)
    try:
        with Documents(config) as documents:
            outcome = documents.prune(held)
    except Stop as error:
        return None, error
    if outcome.stale:
        err.print(f"{outcome.stale:,} documents were changed meanwhile and stay", markup=False, style="yellow")
    return outcome.deleted, None


def _remark(report: "Report", source: "Source") -> None:
    """What the user should know beside the counts."""
    remarks = []
    if not report.read:
        remarks.append("nothing was read: the source is empty")
    if report.dead:
        remarks.append(f"{counted(report.dead, 'line')} could not be stored; see the reasons in {source.dead_letters}")
    if report.stale:
        remarks.append(
            f"{counted(report.stale, 'line')} older than what is stored, or with an id that comes again; if that is a "
            "surprise: is the file older than another one that has the same ids, or was a clock ahead? Give the "
            f"records a _version that grows. {report.stale_example}"
        )
    if report.truncated:
        remarks.append(f"{counted(report.truncated, 'document')} longer than a tower reads; only the beginning counts")
    if report.undeclared:
        keys = ", ".join(f"{key} ({count:,})" for key, count in report.undeclared.items())
        remarks.append(f"keys that are not declared under [collection] fields were not stored: {keys}")
    for remark in remarks:
        err.print(remark, markup=False, style="yellow")
