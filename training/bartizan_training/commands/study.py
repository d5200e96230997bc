"""`bartizan study`: measurements that answer one question about towers."""

import typer

from bartizan_training.commands.quantised import quantised

study = typer.Typer(help="Measure one question about towers.", no_args_is_help=True)
study.command()(quantised)


@study.callback()
def _group() -> None:
    """Each study is a command of its own."""
