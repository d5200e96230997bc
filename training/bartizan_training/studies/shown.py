"""The outcome of the scaling study as a table."""

from rich.box import SIMPLE_HEAD
from rich.table import Table

from bartizan_connector.base.console import out as stdout
from bartizan_training.studies.scaling import Outcome


def show(outcome: Outcome) -> None:
    """Print it."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for title in ("layers", "parameters", "pairs", "nDCG@10", "loss", "the law's", "residual"):
        table.add_column(title, justify="right", no_wrap=True)
    law = outcome.law
    for cell, residual in zip(outcome.cells, law.residuals, strict=True):
        numbers = (f"{cell.layers}", f"{cell.parameters:,}", f"{cell.pairs:,}", f"{cell.ndcg:.3f}", f"{cell.loss:.3f}")
        table.add_row(*numbers, f"{law.at(cell.parameters, cell.pairs):.3f}", f"{residual:+.3f}")
    stdout.print(table)
    stdout.print(f"{law}; {law.explained:.1%} of the variance", markup=False)
