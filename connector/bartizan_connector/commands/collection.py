"""`bartizan collection`: look at what is stored, change single documents, and look after the file."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bartizan_connector.base.console import err, out
from bartizan_connector.base.errors import WrongUse
from bartizan_connector.config import Config

if TYPE_CHECKING:
    from bartizan_connector.documents.documents import Documents
    from bartizan_connector.documents.outcome import Outcome

collection = typer.Typer(
    no_args_is_help=True, help="Look at a collection, change single documents of it, and look after it."
)

ConfigFile = Annotated[Path, typer.Option("--config", help="The configuration file.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Where = Annotated[str | None, typer.Option("--filter", help="E.g. \"year >= 2020 and kind == 'class'\".")]
_DEFAULT = Path("bartizan.toml")
_DAY = 86_400.0
KEPT_DAYS = 90


@collection.command("list")
def list_collections(config: ConfigFile = _DEFAULT, as_json: AsJson = False) -> None:
    """Every collection at [backend] uri, with its names and legs; * marks the configured one."""
    from bartizan_connector.documents.looking import listed

    settings = Config.load(config)
    found = listed(settings)
    if as_json:
        out.print_json(data=found)
        return
    for each in found:
        mark = "*" if settings.collection.name in each["names"] else " "
        legs = ", ".join(f"{leg['name']} ({leg['kind']}, {leg['dim']})" for leg in each["legs"])
        out.print(f"{mark} {', '.join(each['names']) or '(no name)'}  {each['physical_name']}  {legs}", markup=False)
    if not found:
        err.print("there is no collection yet; bartizan ingest makes one", markup=False)


@collection.command("show")
def show_collection(config: ConfigFile = _DEFAULT, as_json: AsJson = False) -> None:
    """The configured collection: how many documents, its legs and their spaces, its fields, the bytes on disk."""
    from bartizan_connector.documents.looking import shown

    facts = shown(Config.load(config))
    if as_json:
        out.print_json(data=facts)
        return
    legs = "; ".join(f"{leg['name']}: {leg['kind']}, {leg['dim']}, space {leg['space_id']}" for leg in facts["legs"])
    fields = ", ".join(f"{field['name']} ({field['type']})" for field in facts["fields"])
    told = facts | {"legs": legs, "fields": fields, "remarks": "; ".join(facts["remarks"])}
    for name, value in told.items():
        if value not in (None, ""):
            out.print(f"{name:<14} {value:,}" if isinstance(value, int) else f"{name:<14} {value}", markup=False)


@collection.command("count")
def count_documents(filter: Where = None, config: ConfigFile = _DEFAULT, as_json: AsJson = False) -> None:
    """How many documents there are, or pass the filter."""
    with _opened(config) as documents:
        number = documents.count(filter)
    out.print_json(data={"count": number}) if as_json else out.print(str(number), markup=False)


@collection.command("get")
def get_documents(
    ids: Annotated[list[str], typer.Argument(metavar="ID…", help="Which documents.")],
    config: ConfigFile = _DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Print these documents, one line of JSON each, as ingest reads them; --json: one list. 1 when one is missing."""
    from json import dumps

    with _opened(config) as documents:
        found = documents.get(ids)
    if as_json:
        out.print_json(data=list(found.values()))
    else:
        for document in found.values():
            out.print(dumps(document, ensure_ascii=True), markup=False)
    missing = [id for id in ids if id not in found]
    if missing:
        err.print(f"not stored: {', '.join(missing)}", markup=False, style="yellow")
        raise typer.Exit(1)


@collection.command("put")
def put_documents(
    file: Annotated[str, typer.Argument(metavar="FILE", help="JSON lines; - is standard input.")],
    config: ConfigFile = _DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Store these documents. What cannot be stored is told with its line and reason, the rest is written; then 1."""
    with _opened(config) as documents:
        outcome = documents.put(_lines(file))
    _tell(outcome, as_json)


@collection.command("delete")
def delete_documents(
    ids: Annotated[list[str], typer.Argument(metavar="ID…", help="Which documents.")],
    config: ConfigFile = _DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Remove these documents, and remember that, so that no older change brings them back."""
    with _opened(config) as documents:
        documents.count()  # a collection that is not there is refused, not made
        outcome = documents.delete(ids)
    _tell(outcome, as_json)


@collection.command("drop")
def drop_collection(
    yes: Annotated[bool, typer.Option("--yes", help="Yes, remove all of it.")] = False,
    config: ConfigFile = _DEFAULT,
) -> None:
    """Remove the configured collection: documents, vectors, words, and what is known of deleted ones."""
    with _opened(config) as documents:
        number = documents.count()
        if not yes:
            raise WrongUse(
                f"this removes collection '{documents.collection.name}' with its {number:,} documents for good; add "
                "--yes if that is meant (bartizan collection backup makes a copy first)"
            )
        documents.drop()
    err.print(f"dropped '{documents.collection.name}' with {number:,} documents", markup=False)


@collection.command("compact")
def compact_collection(
    keep_days: Annotated[
        float, typer.Option("--keep-days", min=0.0, help="Deletions of so many days are remembered still.")
    ] = KEPT_DAYS,
    config: ConfigFile = _DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Forget old deletions, give back the room on disk, build the indexes anew.

    What is forgotten can be brought back by a replay of something older: keep as many days as your sources keep.
    """
    from bartizan_connector.documents.upkeep import compacted

    facts = compacted(Config.load(config), keep_days * _DAY)
    if as_json:
        out.print_json(data=facts)
        return
    out.print(f"{facts['forgotten']:>14,}  deletions older than {keep_days:g} days forgotten", markup=False)
    if facts["bytes"] is not None:
        out.print(f"{facts['bytes']:>14,}  bytes given back", markup=False)


@collection.command("backup")
def backup_store(
    target: Annotated[Path, typer.Argument(metavar="FILE", help="A new file.")],
    config: ConfigFile = _DEFAULT,
) -> None:
    """Copy the embedded store, as it is at this moment, into a new file; a writer goes on meanwhile."""
    from bartizan_connector.documents.upkeep import backed_up

    backed_up(Config.load(config), target)
    err.print(f"{target} holds the store as it was; set [backend] uri to it, or move it back in place", markup=False)


def _opened(config: Path) -> "Documents":
    from bartizan_connector.documents.documents import Documents

    return Documents.open(config)


def _lines(file: str) -> Iterator[bytes]:
    """The lines that are not blank."""
    from bartizan_connector.documents.given import lines_of_file

    yield from lines_of_file(file)


def _tell(outcome: "Outcome", as_json: bool) -> None:
    from dataclasses import asdict

    if as_json:
        out.print_json(data=asdict(outcome))
    else:
        counts: dict[str, Any] = asdict(outcome) | {"refused": len(outcome.refused)}
        for name in ("written", "unchanged", "deleted", "stale", "refused"):
            if counts[name]:
                out.print(f"{counts[name]:>12,}  {name}", markup=False)
        for refusal in outcome.refused:
            err.print(f"document {refusal.number + 1}: {refusal.reason}", markup=False, style="yellow")
        for key, count in outcome.undeclared.items():
            err.print(f"'{key}' is not declared and was not stored ({count:,} documents)", markup=False, style="yellow")
    if outcome.refused:
        raise typer.Exit(1)
