"""The program `bartizan`: gathers the sub-commands of the four packages and turns errors into exit codes."""

import errno
import os
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points, version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from bartizan_connector.base.console import err
from bartizan_connector.base.errors import BartizanError, WrongUse

ORDER = ("demo", "tower", "train", "export", "repo", "deploy", "ingest", "search", "eval", "doctor")
"""The order a newcomer meets the commands in; others follow by name."""
TRACEBACK = "BARTIZAN_TRACEBACK"
"""The environment variable that lets a programming error show where it happened."""


def build(only: str | None = None) -> typer.Typer:
    """The command line: one sub-command for each `bartizan.commands` entry point, or the one that is asked for."""
    cli = typer.Typer(
        name="bartizan",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",  # the default mode would swallow the [tables] that help texts name
        cls=_InOrder,
        help="Build retrieval towers, distil a small query tower, and search with it.",
    )

    @cli.callback()
    def bartizan(
        version: Annotated[
            bool, typer.Option("--version", is_eager=True, callback=_tell_version, help="Print the version and exit.")
        ] = False,
    ) -> None:
        """Build retrieval towers, distil a small query tower, and search with it."""

    points = entry_points(group="bartizan.commands")
    for point in [point for point in points if point.name == only] or points:
        command = point.load()
        if isinstance(command, typer.Typer):
            cli.add_typer(command, name=point.name)
        else:
            cli.command(point.name)(command)
    return cli


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; exit 0 done, 1 failed, 2 wrong use, 3 refused by the space contract, 4 unreachable."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        build(arguments[0] if arguments else None)(arguments, prog_name="bartizan")
    except BartizanError as error:
        err.print(f"error: {error}", markup=False, style="red")
        sys.exit(error.exit_code)
    except Exception as error:  # the last resort: what is foreseen has become a BartizanError by now
        if os.environ.get(TRACEBACK):
            raise
        what = " ".join(f"{type(error).__name__}: {error}".split())
        if _is_no_path(error):
            err.print(f"error: a path that was given cannot be one: {what}", markup=False, style="red")
            sys.exit(WrongUse.exit_code)
        err.print(
            f"error: {what}. This was not foreseen, so it is a fault of Bartizan; {TRACEBACK}=1 shows where it "
            "happened",
            markup=False,
            style="red",
        )
        sys.exit(BartizanError.exit_code)


def _is_no_path(error: Exception) -> bool:
    """Whether the system refused a path that a person gave, for its length or for a byte of zero in it."""
    if isinstance(error, OSError):
        return error.errno == errno.ENAMETOOLONG
    return isinstance(error, ValueError) and "embedded null" in str(error)


def _tell_version(asked: bool) -> None:
    if asked:
        print(f"bartizan {version('bartizan-search')}")
        raise typer.Exit


class _InOrder(TyperGroup):
    """Lists the commands in the order a newcomer meets them."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=_rank)


def _rank(name: str) -> tuple[int, str]:
    return (ORDER.index(name) if name in ORDER else len(ORDER), name)


if __name__ == "__main__":
    main()
