"""The command line as a whole: gathers the sub-commands of the four packages and turns errors into exit codes."""

import errno
import inspect
import logging
import os
import traceback
from collections.abc import Callable, Sequence
from functools import wraps
from importlib.metadata import entry_points, version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from bartizan_connector.base.console import complain, err
from bartizan_connector.base.errors import BartizanError, Interrupted, WrongUse, interruptible
from bartizan_connector.base.output import guarded_output
from bartizan_connector.commands.usage import is_usage, tell_usage

ORDER = ("demo", "tower", "train", "export", "repo", "deploy", "ingest", "dlq", "search", "eval", "doctor")
"""The order a newcomer meets the commands in; others follow by name."""
TRACEBACK = "BARTIZAN_TRACEBACK"
"""The environment variable that lets a programming error show where it happened."""
PATIENT = ("OMP_WAIT_POLICY", "PASSIVE")
"""Threads of torch and faiss that wait for each other sleep instead of spinning: on busy cores they would take from the
ones they wait for most of the time that these need (docs/decisions/023)."""
_LOGGERS = ("bartizan_connector", "bartizan_encoders", "bartizan_training", "bartizan_triton")
_BROKEN_OFF = "what was finished before stays as it is"

Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say on stderr, step by step, what is being done.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no remarks on stderr, only errors.")]


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
            cli.add_typer(_each_talking(command), name=point.name)
        else:
            cli.command(point.name)(_talking(command))
    return cli


def run(arguments: Sequence[str]) -> int:
    """Run one command; its exit code. Nothing is raised but what a person asked to see."""
    os.environ.setdefault(*PATIENT)
    arguments = list(arguments)
    _talk(verbose=False, quiet=False)
    try:
        with guarded_output():
            return _run(arguments)
    except SystemExit as ended:
        if ended.code == Interrupted.exit_code:  # while the words of the command were being read
            complain("interrupted before anything was begun", style="yellow")
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BartizanError as error:  # what was printed could not be written
        complain(f"error: {error}")
        return error.exit_code


def _run(arguments: list[str]) -> int:
    try:
        cli = build(arguments[0] if arguments else None)
        return int(cli(arguments, prog_name="bartizan", standalone_mode=False) or 0)
    except Interrupted as error:
        complain(str(error), style="yellow")
        return error.exit_code
    except BartizanError as error:
        complain(f"error: {error}")
        return error.exit_code
    except Exception as error:  # the last resort: what is foreseen has become a BartizanError by now
        if is_usage(error):
            return tell_usage(error, arguments)
        if os.environ.get(TRACEBACK):
            raise
        if logging.getLogger(_LOGGERS[0]).isEnabledFor(logging.DEBUG):
            complain(traceback.format_exc(), style="")
        what = " ".join(f"{type(error).__name__}: {error}".split())
        if _is_no_path(error):
            complain(f"error: a path that was given cannot be one: {what}")
            return WrongUse.exit_code
        complain(
            f"error: {what}. This was not foreseen, so it is a fault of Bartizan; {TRACEBACK}=1 shows where it happened"
        )
        return BartizanError.exit_code


def _each_talking(group: typer.Typer) -> typer.Typer:
    """The group with both options on each of its commands."""
    talking = typer.Typer(no_args_is_help=True, help=group.info.help)
    for command in group.registered_commands:
        assert command.callback
        talking.command(command.name)(_talking(command.callback))
    return talking


def _talking(command: Callable[..., Any]) -> Callable[..., Any]:
    """The command with `--verbose` and `--quiet`, broken off in good order by Ctrl-C."""

    @wraps(command)
    def talking(*arguments: Any, verbose: bool, quiet: bool, **named: Any) -> Any:
        if verbose and quiet:
            raise WrongUse("--verbose and --quiet exclude each other; give one of them")
        _talk(verbose=verbose, quiet=quiet)
        with interruptible(_BROKEN_OFF):
            return command(*arguments, **named)

    signature = inspect.signature(command, eval_str=True)
    own = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=kind)
        for name, kind in (("verbose", Verbose), ("quiet", Quiet))
    ]
    told = signature.replace(parameters=[*signature.parameters.values(), *own])
    talking.__signature__ = told  # type: ignore[attr-defined]
    talking.__annotations__ = {name: parameter.annotation for name, parameter in told.parameters.items()}
    return talking


def _talk(*, verbose: bool, quiet: bool) -> None:
    """How much is said on stderr from here on."""
    err.quiet = quiet
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        logger.setLevel(logging.DEBUG if verbose else logging.ERROR if quiet else logging.WARNING)
        for handler in [handler for handler in logger.handlers if isinstance(handler, _OnStderr)]:
            logger.removeHandler(handler)
        logger.addHandler(_OnStderr())


class _OnStderr(logging.Handler):
    """A line on stderr, as remarks are."""

    def emit(self, record: logging.LogRecord) -> None:
        style = "yellow" if record.levelno >= logging.WARNING else "dim"
        (complain if record.levelno >= logging.ERROR else _remark)(record.getMessage(), style=style)


def _remark(text: str, *, style: str) -> None:
    err.print(text, markup=False, style=style)


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
