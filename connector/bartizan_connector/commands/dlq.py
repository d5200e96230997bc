"""`bartizan dlq`: the dead letters of a source, looked at and given again."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bartizan_connector.base.console import counted, err, out
from bartizan_connector.base.errors import Stop, WrongUse, interruptible
from bartizan_connector.base.progress import progress
from bartizan_connector.config import Config

if TYPE_CHECKING:
    from bartizan_connector.stream.letters import Chosen, Letter, Letterbox
    from bartizan_connector.stream.report import Report

dlq = typer.Typer(no_args_is_help=True, help="Look at the dead letters of [source], and give them again.")

ConfigFile = Annotated[Path, typer.Argument(help="The configuration file.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Reasons = Annotated[list[str] | None, typer.Option("--reason", help="Only with this text in the reason.")]
Ids = Annotated[list[str] | None, typer.Option("--id", help="Only of this document; several times for several.")]
Since = Annotated[
    str | None, typer.Option("--since", help="Only those set aside since 2026-11-27, 2026-11-27T14:00 or 90m, 6h, 2d.")
]
_DEFAULT = Path("bartizan.toml")
_UNITS = {"m": 60.0, "h": 3600.0, "d": 86_400.0}
_MEANINGS = {
    "written": "stored now",
    "unchanged": "stored already with this content",
    "deleted": "removed, and remembered as removed",
    "stale": "a newer change of the document came meanwhile, and stays",
    "dead": "refused again, and stay with the reason of now",
    "dropped": "of partitions that went to another worker, and stay",
}
_WAY_ON = "what was stored is stored. Run the same command again: a letter that is given twice does no harm"


@dlq.command("list")
def list_letters(
    config: ConfigFile = _DEFAULT,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Show at most so many.")] = 100,
    reason: Reasons = None,
    id: Ids = None,
    since: Since = None,
    as_json: AsJson = False,
) -> None:
    """The dead letters that nobody has seen to, oldest first: place, time, document, where it came from, reason."""
    chosen = _chooser(reason, id, since)
    with _letters(config) as (_, box), closing(box.letters()) as letters:
        some = filter(chosen, letters)
        shown = list(islice(some, limit))
        more = sum(1 for _ in some)
    if as_json:
        out.print_json(data={"place": box.place, "more": more, "letters": [_told(letter) for letter in shown]})
        return
    for letter in shown:
        when = "" if letter.time is None else f"{datetime.fromtimestamp(letter.time):%Y-%m-%d %H:%M:%S}"
        out.print(f"{letter.place:<8} {when:<19}  {letter.id or '?'}  {letter.source}  {letter.reason}", markup=False)
    if more:
        err.print(f"and {more:,} more; --limit shows them", markup=False)
    if not shown:
        err.print(f"no dead letter in {box.place}", markup=False)


@dlq.command("replay")
def replay_letters(
    config: ConfigFile = _DEFAULT,
    all: Annotated[bool, typer.Option("--all", help="Every letter.")] = False,
    reason: Reasons = None,
    id: Ids = None,
    since: Since = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would become of them.")] = False,
    as_json: AsJson = False,
) -> None:
    """Give dead letters again, after the cause was mended: a decoder, a field, a tower, a full disk.

    Each keeps the version that it was read at: where a newer change of its document came meanwhile, be it a delete,
    that one stays. What is stored, or older, is not listed any more; what is refused again is, and the exit code is 1.
    No run may write the collection meanwhile; the workers of a topic have to be stopped.
    """
    asked = bool(reason or id or since)
    if all == asked:
        raise WrongUse("say which letters: --all, or some by --reason, --id or --since; not both, not neither")
    chosen = _chooser(reason, id, since)
    with interruptible(_WAY_ON), _letters(config) as (settings, box):
        report = _foreseen(settings, box, chosen) if dry_run else _replayed(settings, box, chosen)
    facts = {name: getattr(report, name) for name in ("read", *_MEANINGS)}
    if as_json:
        out.print_json(data={"place": box.place, "dry_run": dry_run, **facts})
    else:
        for name, meaning in _MEANINGS.items():
            if facts[name] or name == "written":
                out.print(f"{facts[name]:>12,}  {name:<10} {meaning}", markup=False)
        again = "would be given again; nothing was changed" if dry_run else "given again"
        out.print(f"{report.read:>12,}  {again}", markup=False)
    if not report.read:
        err.print(f"no such letter in {box.place}", markup=False, style="yellow")
    if report.dead and not dry_run:
        err.print(f"{counted(report.dead, 'letter')} refused again: bartizan dlq list", markup=False, style="yellow")
        raise typer.Exit(1)
    if report.dropped:
        raise Stop(f"{counted(report.dropped, 'letter')} left, as other workers took their partitions; {_WAY_ON}")


@contextmanager
def _letters(config: Path) -> "Iterator[tuple[Config, Letterbox]]":
    from bartizan_connector.stream.sources import open_letters

    settings = Config.load(config)
    with closing(open_letters(settings)) as box:
        yield settings, box


def _chooser(reasons: list[str] | None, ids: list[str] | None, since: str | None) -> "Chosen":
    from bartizan_connector.stream.letters import chooser

    return chooser(reasons=reasons or (), ids=ids or (), since=None if since is None else _moment(since))


def _moment(text: str) -> float:
    """A date, a date with a time, or a time ago."""
    number, unit = text[:-1], text[-1:]
    if unit in _UNITS and number.replace(".", "", 1).isdigit():
        return time.time() - float(number) * _UNITS[unit]
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError as error:
        raise WrongUse(
            f"--since takes a date (2026-11-27, 2026-11-27T14:00) or a time ago (90m, 6h, 2d), but {text!r:.40} came"
        ) from error


def _told(letter: "Letter") -> dict[str, Any]:
    """A letter for a program."""
    value = letter.message.value
    return {
        "place": letter.place,
        "source": letter.source,
        "id": letter.id,
        "reason": letter.reason,
        "time": letter.time,
        "version": letter.message.version,
        "text": None if value is None else value.decode(errors="backslashreplace"),
    }


def _replayed(config: Config, box: "Letterbox", chosen: "Chosen") -> "Report":
    from bartizan_connector.config.towers import collection_of, open_encoders
    from bartizan_connector.search.configured import open_words
    from bartizan_connector.stream.chunks import Cutter
    from bartizan_connector.stream.replay import replay
    from bartizan_connector.stream.towers import check_towers

    with ExitStack() as opened:
        collection = collection_of(config)
        cutter = Cutter.of(config)
        encoders = open_encoders(config, "document")
        for encoder in encoders.values():
            opened.enter_context(closing(encoder))
        check_towers(encoders, collection)
        backend = opened.enter_context(closing(config.backend.open()))
        store = opened.enter_context(closing(backend.open(collection)))
        words = open_words(config)
        if words is not None:
            opened.enter_context(closing(words))
        with progress(f"giving letters to {collection.name} again") as tick:
            return replay(
                box, chosen, store, encoders, words=words, cutter=cutter, on_batch=lambda share: tick(share.read)
            )


def _foreseen(config: Config, box: "Letterbox", chosen: "Chosen") -> "Report":
    from bartizan_connector.config.towers import collection_of
    from bartizan_connector.stream.chunks import Cutter
    from bartizan_connector.stream.replay import foreseen

    with (
        closing(config.backend.open()) as backend,
        closing(backend.open(collection_of(config), create=False)) as store,
    ):
        return foreseen(box, chosen, store, cut=Cutter.of(config).cut)
