"""`bartizan index`: look at the indexes of the collection, build them anew, measure what they find."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bartizan_connector.base.console import err, out
from bartizan_connector.base.errors import WrongUse, interruptible
from bartizan_connector.base.progress import Tick, progress
from bartizan_connector.config import Config

if TYPE_CHECKING:
    from bartizan_connector.store.backend import IndexFacts, Store
    from bartizan_connector.store.recall import Recall

index = typer.Typer(
    no_args_is_help=True, help="Look at the indexes of the collection, build them anew, measure what they find."
)

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="The configuration file.")]
Leg = Annotated[str | None, typer.Option("--leg", help="Only this leg.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_DEFAULT = Path("bartizan.toml")


@index.command("show")
def show_indexes(config: ConfigFile = _DEFAULT, leg: Leg = None, as_json: AsJson = False) -> None:
    """Of each leg: the kind of index, its parameters and state, the rows it covers, its recall when it was built."""
    from bartizan_connector.store.backend import Indexed

    settings = Config.load(config)
    with _store(settings, leg) as (store, legs):
        if not isinstance(store, Indexed):
            raise _not_indexed(settings)
        facts = [each for each in store.indexes() if each.leg in legs]
    _tell(facts, as_json)


@index.command("build")
def build_indexes(
    config: ConfigFile = _DEFAULT,
    leg: Leg = None,
    kind: Annotated[
        str | None, typer.Option("--kind", help="Another kind than [backend] asks for, this once: hnsw, ivf_sq8, …")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Build indexes anew, wait until they stand, and measure their recall.

    Where that is low, searches are made broader; where it stays low, or the server cannot build what is asked for, an
    index of another kind is made instead. Exit code 1: something is not as it was asked for, and it is said what.
    """
    from bartizan_connector.store.backend import Indexed
    from bartizan_connector.store.profiles import Profile

    settings = Config.load(config)
    profile = None if kind is None else Profile(kind=kind)
    way_on = "searches are answered; run the same command again, and it builds the rest"
    with interruptible(way_on), _store(settings, leg) as (store, legs):
        if not isinstance(store, Indexed):
            raise _not_indexed(settings)
        if profile is not None and leg is None and len(legs) > 1:
            raise WrongUse(f"--kind {kind} is for one leg; say which by --leg: {', '.join(legs)}")
        facts = []
        for each in legs:
            with progress(f"building the {each} index", total=store.count()) as tick:
                facts.append(store.build(each, profile, on_rows=_ticking(tick)))
    _tell(facts, as_json)
    least = settings.backend.least_recall
    if any(each.note or each.state != "finished" or (each.recall or 1.0) < least for each in facts):
        raise typer.Exit(1)


@index.command("probe")
def probe_indexes(config: ConfigFile = _DEFAULT, leg: Leg = None, as_json: AsJson = False) -> None:
    """Measure now how many of the ten nearest rows a search finds, beside comparing every row.

    Every vector is read, as in a scan. Exit code 1: it is less than [backend] least_recall.
    """
    from bartizan_connector.store.recall import recall_of

    settings = Config.load(config)
    found: dict[str, Recall] = {}
    with _store(settings, leg) as (store, legs):
        for each in legs:
            with progress(f"probing the {each} index") as tick:
                found[each] = recall_of(store, each)
                tick(found[each].rows)
    if as_json:
        out.print_json(data=[{"leg": name, **asdict(recall)} for name, recall in found.items()])
    else:
        for name, recall in found.items():
            out.print(
                f"{name:<14} recall@{recall.k} {recall.recall:.3f}  of {recall.queries} queries over "
                f"{recall.rows:,} rows",
                markup=False,
            )
    low = [name for name, recall in found.items() if recall.recall < settings.backend.least_recall]
    if low:
        err.print(
            f"below [backend] least_recall = {settings.backend.least_recall:g}: {', '.join(low)}; bartizan index build "
            "makes searches broader, or another index",
            markup=False,
            style="yellow",
        )
        raise typer.Exit(1)


@contextmanager
def _store(settings: Config, leg: str | None) -> "Iterator[tuple[Store, list[str]]]":
    """The configured collection, which has to be there, and the legs that are meant."""
    from bartizan_connector.documents.documents import Documents
    from bartizan_connector.store.checks import checked_leg

    with Documents(settings) as documents:
        store = documents.store
        legs = [each.name for each in store.collection.legs]
        yield store, legs if leg is None else [checked_leg(store.collection, leg).name]


def _not_indexed(settings: Config) -> WrongUse:
    return WrongUse(
        f"'{settings.backend.uri}' keeps no indexes: it compares every row; [backend] uri of a file or of a Milvus "
        "server has some"
    )


def _ticking(tick: Tick) -> Callable[[int, int], None]:
    """Counts told as totals, passed on as steps; a build that begins anew is not told backwards."""
    told = 0

    def on_rows(covered: int, total: int) -> None:
        nonlocal told
        if covered > told:
            tick(covered - told)
            told = covered

    return on_rows


def _tell(facts: "list[IndexFacts]", as_json: bool) -> None:
    if as_json:
        out.print_json(data=[asdict(each) for each in facts])
        return
    for each in facts:
        parts: list[Any] = [f"{each.leg:<14} {each.kind:<22} {each.state}"]
        parts.append(f"{each.indexed:,} of {each.rows:,} rows covered")
        if each.recall is not None:
            parts.append(f"recall@10 {each.recall:.3f}")
        for name, values in (("built with", each.build), ("searched with", each.search)):
            if values:
                parts.append(f"{name} {', '.join(f'{key} = {value}' for key, value in values.items())}")
        if each.sequence is not None:
            parts.append(f"as of change {each.sequence:,}")
        out.print("  ".join(parts), markup=False)
        if each.note:
            err.print(f"{each.leg}: {each.note}", markup=False, style="yellow")
