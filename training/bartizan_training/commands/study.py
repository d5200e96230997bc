"""`bartizan study`: one recipe many times, with one thing changed."""

from pathlib import Path
from typing import Annotated

import typer

from bartizan_connector.base import console
from bartizan_connector.base.errors import WrongUse, require_installed
from bartizan_encoders import NEEDED

study = typer.Typer(no_args_is_help=True, help="Run a recipe many times with one thing changed, and compare.")


@study.callback()
def group() -> None:
    """Run a recipe many times with one thing changed, and compare."""


@study.command("fraction")
def fraction(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped recipe, as gtr-small.")],
    data: Annotated[Path, typer.Option(help="The BEIR folder to learn from, and to judge on.")],
    out: Annotated[Path, typer.Option(help="The folder of all runs; begun ones go on.")],
    fractions: Annotated[str, typer.Option(help="Shares of the judged queries.")] = "0.1,1",
    elsewhere: Annotated[
        list[Path] | None, typer.Option(help="A BEIR folder that nothing is learned from; more than one may be given.")
    ] = None,
    tower: Annotated[str | None, typer.Option(help="Start from this tower instead of the recipe's.")] = None,
    split: Annotated[str, typer.Option(help="Which judgements to judge by.")] = "test",
    threads: Annotated[int, typer.Option(min=0, help="Threads on CPU; 0: torch's choice.")] = 0,
) -> None:
    """How much is lost with a share of the judged queries: GTR's 10 % study."""
    require_installed((*NEEDED, "accelerate", "ir_measures"), "train")
    import torch

    from bartizan_training.recipe import Recipe, find
    from bartizan_training.studies.fraction import REPORT, FractionStudy

    if threads:
        torch.set_num_threads(threads)
    try:
        shares = [float(part) for part in fractions.split(",")]
    except ValueError as error:
        raise WrongUse(f"--fractions {fractions!r}: expected numbers, as in 0.1,1") from error
    loaded = Recipe.load(find(recipe), tower=tower, data=data)
    report = FractionStudy(
        recipe=loaded, out=out, fractions=shares, elsewhere=tuple(map(Path.absolute, elsewhere or ())), split=split
    ).run()
    console.out.print("share  queries  collection      nDCG@10   R@100   behind the largest share (95 %)", markup=False)
    for row in report.rows:
        gap = row.against_all["nDCG@10"] if row.against_all else None
        told = f"{gap.mean:+.4f}  {gap.low:+.3f} … {gap.high:+.3f}" if gap else ""
        line = f"{row.fraction:>5.0%}  {row.queries:>7,}  {row.collection:<14}  {row.metrics['nDCG@10']:>7.4f}"
        console.out.print(f"{line}  {row.metrics['R@100']:>6.4f}   {told}".rstrip(), markup=False)
    console.err.print(f"written to {out / REPORT}", markup=False)
