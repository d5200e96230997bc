"""`bartizan search`: one query on the terminal."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from bartizan_connector.console import err, out

SNIPPET_CHARS = 100


def search(
    text: Annotated[str, typer.Argument(help="What to look for, in your own words.")],
    config: Annotated[Path, typer.Option(help="The configuration file.")] = Path("bartizan.toml"),
    k: Annotated[int, typer.Option("--k", "-k", help="How many documents.")] = 10,
    filter: Annotated[str | None, typer.Option(help="E.g. \"module == 'time' and not deprecated\".")] = None,
    timeout: Annotated[float | None, typer.Option(help="Deadline of the whole call, in seconds.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the whole answer as JSON.")] = False,
) -> None:
    """Search a collection: encode the query, search its legs side by side, fuse."""
    from rich.markup import escape

    from bartizan_connector.retriever import Retriever

    with Retriever.open(config) as retriever:
        answer = retriever.search(text, k, filter, timeout=timeout)
    if json:
        out.print_json(data=asdict(answer))
        return
    for rank, result in enumerate(answer, start=1):
        legs = "  ".join(f"{leg} #{place.rank} ({place.score:.3f})" for leg, place in result.legs.items())
        title = str(result.fields.get("title") or result.id)
        out.print(f"[bold]{rank:>3}  {escape(title)}[/bold]  {result.score:.4f}  [dim]{legs}[/dim]")
        if snippet := " ".join(str(result.fields.get("text", "")).split()):
            out.print(f"     {escape(snippet[:SNIPPET_CHARS])}{'…' if len(snippet) > SNIPPET_CHARS else ''}")
    if not answer.results:
        err.print("nothing found", markup=False)
    if answer.degraded:
        err.print(f"degraded: {answer.degraded}", markup=False, style="yellow")
    if answer.truncated:
        err.print("the query was longer than the tower reads; only its beginning counted", markup=False, style="yellow")
    spent = answer.latency_ms
    legs = ", ".join(f"{leg} {value:.1f}" for leg, value in spent.legs.items())
    err.print(
        f"{spent.total:.1f} ms (encode {spent.encode:.1f}, {legs}, fuse {spent.fuse:.1f}) · "
        f"space {answer.space_id} · tower {answer.tower_id}",
        markup=False,
        style="dim",
    )
