"""`bartizan doctor`: looks at what is installed and configured, and says what to do about each finding."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from bartizan_connector.base.console import err, out

MARK = {"ok": "[green]ok[/green]     ", "note": "[dim]note[/dim]   ", "problem": "[red]problem[/red]"}


def doctor(
    config: Annotated[Path | None, typer.Option(help="Also check this configuration and all it names.")] = None,
    server: Annotated[
        list[str] | None, typer.Option(help="Also look at this Triton server (grpc://host:port); several times.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Check the installation; with --config the towers, spaces, collection and paths; with --server a Triton server."""
    from rich.markup import escape

    from bartizan_connector.doctor import configuration, installation

    findings = list(installation.examine())
    default = Path("bartizan.toml")
    chosen = config or (default if default.exists() else None)
    if chosen:
        findings += configuration.examine(chosen)
    for url in server or []:
        from bartizan_connector.doctor import triton

        findings += triton.examine(url)
    if json:
        out.print_json(data=[asdict(finding) for finding in findings])
    else:
        for finding in findings:
            out.print(f"{MARK[finding.status]} {escape(finding.area):<15} {escape(finding.what)}")
            if finding.way_out:
                out.print(f"        {'':<15} → {escape(finding.way_out)}")
        if not chosen and not server:
            err.print("no configuration was checked; name one with --config bartizan.toml", markup=False)
    raise typer.Exit(max((finding.exit_code for finding in findings), default=0))
