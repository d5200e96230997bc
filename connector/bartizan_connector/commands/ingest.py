"""`bartizan ingest`: brings the configured collection up to what the source says."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from threading import Event, current_thread, main_thread
from typing import TYPE_CHECKING, Annotated

import typer

from bartizan_connector.base.console import err, out, progress
from bartizan_connector.base.errors import WrongUse
from bartizan_connector.config import Config

if TYPE_CHECKING:
    from bartizan_connector.stream.report import Report
    from bartizan_connector.stream.source import Source

COUNTS = {
    "written": "new or changed, encoded and stored",
    "unchanged": "stored already with this content",
    "deleted": "removed, and remembered as removed",
    "stale": "older than what is stored",
    "dead": "cannot be stored, set aside with the reason",
    "dropped": "went to another reader, which reads them again",
}
INTERRUPTED = 130
"""The exit code that shells give to who was interrupted."""


def ingest(
    config: Annotated[Path, typer.Argument(help="The configuration file.")] = Path("bartizan.toml"),
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
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Stream the documents of [source] into the collection: read, skip what is there, encode, write.

    A document is one JSON line: {"_id": "a", "title": "…", "text": "…"} and the fields that [collection] declares;
    {"_id": "a", "_deleted": true} removes it. Run it again whenever the files change: what is stored already is not
    encoded again, and a run that was killed goes on where it stopped. A line that cannot be stored is set aside in the
    dead-letter file with its position and the reason, and the rest goes on. One run at a time may write a collection.

    A topic ([source] kind = "kafka") is followed: SIGTERM ends the worker once what is in flight is committed. Workers
    of one group share its partitions.
    """
    from bartizan_connector.stream.sources import open_source

    if follow and until_caught_up:
        raise WrongUse("--follow goes on and --until-caught-up ends: give one of them")
    settings = Config.load(config)
    source = open_source(settings, follow=True if follow else False if until_caught_up else None)
    try:
        with _told_to_stop() as stop:
            report = ingest_all(settings, source, reindex=reindex, stop=stop)
    except KeyboardInterrupt:
        err.print(
            "interrupted; what was committed is stored. Run the same command again: it completes what was begun, "
            "and what is stored is not encoded again",
            markup=False,
            style="yellow",
        )
        raise typer.Exit(INTERRUPTED) from None
    if json:
        letters = source.dead_letters if report.dead else None
        out.print_json(data={"collection": settings.collection.name, **asdict(report), "dead_letters": letters})
    else:
        for name, meaning in COUNTS.items():
            if name != "dropped" or report.dropped:
                out.print(f"{getattr(report, name):>12,}  {name:<10} {meaning}", markup=False)
        stages = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in report.stages.items())
        out.print(f"{report.read:>12,}  read in {report.seconds:.1f} s ({stages})", markup=False)
    _remark(report, source)
    if strict and report.dead:
        raise typer.Exit(1)


@contextmanager
def _told_to_stop() -> Iterator[Event]:
    """Set by SIGTERM, as an operator's tools send it; what was there before is put back."""
    stop = Event()
    if current_thread() is not main_thread():
        yield stop
        return
    before = signal.signal(signal.SIGTERM, lambda *_: stop.set())
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)


def ingest_all(config: Config, source: "Source", *, reindex: bool = False, stop: Event | None = None) -> "Report":
    """Open what the configuration names, and run the source through it with a progress bar; the source is closed.
    When `stop` is set, what is in flight is committed and the run ends."""
    from bartizan_connector.config.towers import collection_of, open_encoders
    from bartizan_connector.search.configured import open_words
    from bartizan_connector.stream.work import run

    with ExitStack() as opened:
        opened.enter_context(closing(source))
        collection = collection_of(config)
        encoders = open_encoders(config, "document")
        for encoder in encoders.values():
            opened.enter_context(closing(encoder))
        backend = opened.enter_context(closing(config.backend.open()))
        if reindex:
            with closing(backend.open(collection)) as store:
                store.reindex()
        words = open_words(config)
        if words is not None:
            opened.enter_context(closing(words))
        with progress(f"ingesting into {collection.name}", total=source.backlog()) as tick:
            return run(
                source, encoders, backend, collection, words=words, on_batch=lambda share: tick(share.read), stop=stop
            )


def _remark(report: "Report", source: "Source") -> None:
    """What the user should know beside the counts."""
    remarks = []
    if report.dead:
        remarks.append(
            f"{report.dead:,} lines could not be stored; see them with their reasons in {source.dead_letters}"
        )
    if report.stale:
        remarks.append(
            f"{report.stale:,} lines are older than what is stored, or repeat an id; if that is a surprise: is the "
            "file older than another one that has the same ids? Give the records a _version that grows"
        )
    if report.truncated:
        remarks.append(f"{report.truncated:,} documents are longer than a tower reads; only their beginning counts")
    if report.undeclared:
        keys = ", ".join(f"{key} ({count:,})" for key, count in report.undeclared.items())
        remarks.append(f"keys that are not declared under [collection] fields were not stored: {keys}")
    for remark in remarks:
        err.print(remark, markup=False, style="yellow")
