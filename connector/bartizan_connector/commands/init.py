"""`bartizan init`: a commented `bartizan.toml` that fits the towers given."""

import tomllib
from pathlib import Path
from typing import Annotated

import typer

from bartizan_connector.base.aside import write_aside
from bartizan_connector.base.console import err
from bartizan_connector.base.errors import WrongUse
from bartizan_connector.base.tables import check


def init(
    towers: Annotated[
        list[Path], typer.Argument(metavar="TOWER…", help="Exports or towers; of several spaces, if you like.")
    ],
    out_file: Annotated[Path, typer.Option("--out", metavar="FILE", help="The file to write.")] = Path("bartizan.toml"),
    name: Annotated[str, typer.Option(help="What the collection is called.")] = "docs",
    uri: Annotated[str, typer.Option(help="Where it is kept, as [backend] uri.")] = "index.bartizan",
    source: Annotated[str, typer.Option(help="The documents, as [source] path.")] = "corpus.jsonl",
) -> None:
    """Write a bartizan.toml for these towers: their spaces, roles and engines are found out.

    Nothing is written over; nothing else is made. Then: bartizan doctor, bartizan ingest, bartizan search.
    """
    from bartizan_connector.config import Config
    from bartizan_connector.config.template import template

    if out_file.exists():
        raise WrongUse(f"{out_file} is there already; give another one with --out, or remove it")
    text = template(towers, out_file.absolute().parent, name=name, uri=uri, source=source)
    check(Config, tomllib.loads(text), out_file)  # what would be refused is not written
    write_aside(out_file, text)
    err.print(f"wrote {out_file}; next: bartizan doctor --config {out_file}", markup=False)
