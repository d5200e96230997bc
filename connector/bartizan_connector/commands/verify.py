"""`bartizan verify`: holds what is stored against itself, and mends what can be."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bartizan_connector.base.console import err, out
from bartizan_connector.base.progress import progress
from bartizan_connector.config import Config

if TYPE_CHECKING:
    from bartizan_connector.doctor.verify.damage import Tally


def verify(
    config: Annotated[Path, typer.Argument(help="The configuration file.")] = Path("bartizan.toml"),
    repair: Annotated[bool, typer.Option("--repair", help="Mend what can be; no other may write meanwhile.")] = False,
    vectors: Annotated[
        str, typer.Option(help="Of how many documents the vectors are encoded again and compared: a number, or all.")
    ] = "100",
    json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")] = False,
) -> None:
    """Hold rows, heads, words, names and the contract of the collection against each other, beside running searches.

    Exit code 0: all is well, or was mended; 1: something is damaged; 3: the contract is another's.
    """
    from bartizan_connector.base.errors import WrongUse
    from bartizan_connector.doctor.verify.verification import verify as verified

    if vectors != "all" and not vectors.isdecimal():
        raise WrongUse(f"--vectors {vectors!r:.40}: give a number of documents, or all")
    settings = Config.load(config)
    with progress(f"verifying {settings.collection.name}") as tick:
        tally = verified(settings, repair=repair, vectors=None if vectors == "all" else int(vectors), on_page=tick)
    if json:
        out.print_json(data=_facts(settings, tally))
    else:
        _show(tally)
    raise typer.Exit(tally.code())


def _facts(settings: Config, tally: "Tally") -> dict[str, object]:
    from bartizan_connector.doctor.verify.damage import MEANING, WAY_OUT

    damages = [
        {
            "kind": kind,
            "count": tally.found[kind],
            "mended": tally.mended[kind],
            "for_the_next_ingest": tally.pending[kind],
            "meaning": MEANING[kind],
            "way_out": WAY_OUT[kind],
            "examples": tally.examples[kind],
        }
        for kind in MEANING
        if tally.found[kind]
    ]
    return {
        "collection": settings.collection.name,
        "documents": tally.documents,
        "rows": tally.rows,
        "vectors_compared": tally.compared,
        "damages": damages,
        "notes": tally.notes,
    }


def _show(tally: "Tally") -> None:
    from bartizan_connector.doctor.verify.damage import MEANING, WAY_OUT

    for kind, meaning in MEANING.items():
        count = tally.found[kind]
        if not count:
            continue
        state = f"{tally.mended[kind]:,} mended" if tally.mended[kind] else ""
        if tally.pending[kind]:
            state = f"{tally.pending[kind]:,} made ready: bartizan ingest writes them again"
        out.print(f"{count:>12,}  {kind:<18} {meaning}{f' ({state})' if state else ''}", markup=False)
        for example in tally.examples[kind][:5]:
            out.print(f"{'':>14}{example}", markup=False)
        if tally.left[kind] and not tally.pending[kind]:
            out.print(f"{'':>14}→ {WAY_OUT[kind]}", markup=False)
    told = "nothing is damaged" if not tally.found else f"{sum(tally.left.values()):,} damages are left"
    out.print(
        f"{tally.documents:>12,}  documents with {tally.rows:,} rows; {tally.compared:,} vectors compared; {told}",
        markup=False,
    )
    for note in tally.notes:
        err.print(note, markup=False, style="yellow")
