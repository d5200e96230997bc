"""`bartizan study`: questions that several runs of a recipe answer together."""

from pathlib import Path
from typing import Annotated

import typer

from bartizan_connector.base.console import err
from bartizan_connector.base.console import out as stdout
from bartizan_connector.base.errors import WrongUse, require_installed
from bartizan_encoders import NEEDED
from bartizan_training.commands.quantised import quantised
from bartizan_training.commands.train import require_start

study = typer.Typer(no_args_is_help=True, help="Answer a question by several runs of a recipe.")


@study.callback()
def _group() -> None:
    """Answer a question by several runs of a recipe."""


@study.command()
def scaling(
    recipe: Annotated[str, typer.Argument(help="A recipe file or name; its contrastive steps are run.")],
    data: Annotated[Path, typer.Option(help="A BEIR folder, for training and for the held-out queries.")],
    out: Annotated[Path, typer.Option(help="The folder of the study; the same again goes on with it.")],
    tower: Annotated[str | None, typer.Option(help="Start from this tower or model instead of the recipe's.")] = None,
    layers: Annotated[str, typer.Option(help="Sizes: how many first layers of the tower are kept.")] = "1,2,4",
    shares: Annotated[str, typer.Option(help="Shares of the training data.")] = "0.1,0.3,1",
    split: Annotated[str, typer.Option(help="Whose queries are held out: a file in qrels/.")] = "test",
) -> None:
    """Train sizes × shares of data, and lay a power law through the losses of held-out queries.

    Every example is seen as often with a share of the data as with all of it. OUT/study.json has the losses, the law
    and its residuals, OUT/scaling.svg the plot.
    """
    require_installed((*NEEDED, "accelerate"), "train")
    from bartizan_training.recipe import Recipe, find
    from bartizan_training.studies.scaling import Scaling
    from bartizan_training.studies.shown import show

    try:
        sizes, parts = [int(text) for text in layers.split(",")], [float(text) for text in shares.split(",")]
    except ValueError as error:
        raise WrongUse(f"--layers takes whole numbers and --shares numbers, with commas between: {error}") from error
    if not all(0 < part <= 1 for part in parts) or not all(size > 0 for size in sizes):
        raise WrongUse(f"--shares {shares} and --layers {layers}: a share is above 0 and at most 1, a size at least 1")
    require_start(tower)
    loaded = Recipe.load(find(recipe), tower=tower, data=data)
    show(Scaling(recipe=loaded, data=data, out=out, layers=sizes, shares=parts, split=split).run())
    stdout.print(f"written to {out / 'study.json'} and {out / 'scaling.svg'}", markup=False)


@study.command()
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
    require_start(tower)
    loaded = Recipe.load(find(recipe), tower=tower, data=data)
    report = FractionStudy(
        recipe=loaded, out=out, fractions=shares, elsewhere=tuple(map(Path.absolute, elsewhere or ())), split=split
    ).run()
    stdout.print("share  queries  collection      nDCG@10   R@100   behind the largest share (95 %)", markup=False)
    for row in report.rows:
        gap = row.against_all["nDCG@10"] if row.against_all else None
        told = f"{gap.mean:+.4f}  {gap.low:+.3f} … {gap.high:+.3f}" if gap else ""
        line = f"{row.fraction:>5.0%}  {row.queries:>7,}  {row.collection:<14}  {row.metrics['nDCG@10']:>7.4f}"
        stdout.print(f"{line}  {row.metrics['R@100']:>6.4f}   {told}".rstrip(), markup=False)
    err.print(f"written to {out / REPORT}", markup=False)


study.command()(quantised)
