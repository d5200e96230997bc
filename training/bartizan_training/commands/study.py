"""`bartizan study`: questions that several runs of a recipe answer together."""

from pathlib import Path
from typing import Annotated

import typer

from bartizan_connector.base.console import out as stdout
from bartizan_connector.base.errors import WrongUse, require_installed
from bartizan_encoders import NEEDED

study = typer.Typer(no_args_is_help=True, help="Answer a question by several runs of a recipe.")


@study.callback()
def _group() -> None:
    """Each study is a command, also while there is but one."""


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
    loaded = Recipe.load(find(recipe), tower=tower, data=data)
    show(Scaling(recipe=loaded, data=data, out=out, layers=sizes, shares=parts, split=split).run())
    stdout.print(f"written to {out / 'study.json'} and {out / 'scaling.svg'}", markup=False)
