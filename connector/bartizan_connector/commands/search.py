"""`bartizan search`: one query on the terminal."""

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from bartizan_connector.base.console import err, out

SNIPPET_CHARS = 100


def search(
    text: Annotated[str, typer.Argument(help="What to look for, in your own words.")],
    config: Annotated[Path, typer.Option(help="The configuration file.")] = Path("bartizan.toml"),
    k: Annotated[int, typer.Option("--k", "-k", help="How many documents.")] = 10,
    filter: Annotated[str | None, typer.Option(help="E.g. \"module == 'time' and not deprecated\".")] = None,
    legs: Annotated[str | None, typer.Option(help='Only these legs, e.g. "dense" or "dense,lexical".')] = None,
    timeout: Annotated[float | None, typer.Option(help="Deadline of the whole call, in seconds.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the whole answer as JSON.")] = False,
) -> None:
    """Search a collection: encode the query, search its legs side by side, fuse them into one list.

    By default every leg is searched that the configuration has: its towers', and the words'. [search] weights and
    fusion say how much each counts.
    """
    from rich.markup import escape

    from bartizan_connector.search.retriever import Retriever

    searching = logging.getLogger("bartizan_connector.search")
    searching.addHandler(logging.NullHandler())
    searching.propagate = searching.isEnabledFor(logging.DEBUG)  # what it says is printed below
    with Retriever.open(config) as retriever:
        chosen = None if legs is None else [name.strip() for name in legs.split(",")]
        answer = retriever.search(text, k, filter, legs=chosen, timeout=timeout)
    if json:
        out.print_json(data=asdict(answer))
        return
    for rank, result in enumerate(answer, start=1):
        places = "  ".join(f"{leg} #{place.rank} ({place.score:.3f})" for leg, place in result.legs.items())
        title = " ".join(str(result.fields.get("title", "")).split())
        title = "" if title == result.id else title
        chunk = f"  chunk {result.chunk}" if result.chunk else ""
        name = f"[bold]{escape(title)}[/bold]  {escape(result.id)}" if title else f"[bold]{escape(result.id)}[/bold]"
        out.print(f"[bold]{rank:>3}[/bold]  {name}{chunk}  {result.score:.4f}  [dim]{places}[/dim]")
        if snippet := " ".join(str(result.fields.get("text", "")).split()):
            out.print(f"     {escape(snippet[:SNIPPET_CHARS])}{'…' if len(snippet) > SNIPPET_CHARS else ''}")
    if not answer.results:
        err.print("nothing found", markup=False)
    if answer.degraded:
        err.print(f"degraded: {answer.degraded}", markup=False, style="yellow")
    if answer.truncated:
        err.print("the query was longer than a tower reads; only its beginning counted", markup=False, style="yellow")
    spent = answer.latency_ms
    each = ", ".join(f"{leg} {value:.1f}" for leg, value in spent.legs.items())
    times = f"{spent.total:.1f} ms (open {spent.open:.1f}, encode {spent.encode:.1f}, {each}, fuse {spent.fuse:.1f})"
    towers = [f"{leg}: space {by.space_id}, tower {by.tower_id}" for leg, by in answer.encoded.items()]
    err.print(" · ".join([times, *towers]), markup=False, style="dim")
