"""`bartizan ingest`: brings the configured collection up to what the source says."""

from contextlib import ExitStack, closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bartizan_connector.base.console import err, out, progress
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
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Stream the documents of [source] into the collection: read, skip what is there, encode, write.

    A document is one JSON line: {"_id": "a", "title": "…", "text": "…"} and the fields that [collection] declares;
    {"_id": "a", "_deleted": true} removes it. Run it again whenever the files change: what is stored already is not
    encoded again, and a run that was killed goes on where it stopped. A line that cannot be stored is set aside in the
    dead-letter file with its position and the reason, and the rest goes on. One run at a time may write a collection.
    """
    from bartizan_connector.stream.sources import open_source

    settings = Config.load(config)
    source = open_source(settings)
    try:
        report = ingest_all(settings, source, reindex=reindex)
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


def ingest_all(config: Config, source: "Source", *, reindex: bool = False) -> "Report":
    """Open what the configuration names, and run the source through it with a progress bar; the source is closed."""
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
            return run(source, encoders, backend, collection, words=words, on_batch=lambda share: tick(share.read))


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
            "file older than another one that has the same ids, or was a clock ahead? Give the records a _version that "
            f"grows. {report.stale_example}"
        )
    if report.truncated:
        remarks.append(f"{report.truncated:,} documents are longer than a tower reads; only their beginning counts")
    if report.undeclared:
        keys = ", ".join(f"{key} ({count:,})" for key, count in report.undeclared.items())
        remarks.append(f"keys that are not declared under [collection] fields were not stored: {keys}")
    for remark in remarks:
        err.print(remark, markup=False, style="yellow")
