"""`bartizan train`: runs a recipe, step by step."""

from pathlib import Path
from typing import Annotated

import typer

from bartizan_connector.base.console import out as stdout
from bartizan_connector.base.errors import WrongUse, require_installed
from bartizan_connector.space.spec import TowerSpec
from bartizan_encoders import NEEDED

_SHIPPED = ", ".join(sorted(path.stem for path in (Path(__file__).parents[1] / "recipes").glob("*.toml")))


def train(
    recipe: Annotated[str, typer.Argument(help=f"A recipe file, or the name of a shipped recipe: {_SHIPPED}.")],
    out: Annotated[Path, typer.Option(help="RUN, the folder that the run makes.")],
    tower: Annotated[
        str | None,
        typer.Option(help="Start from this tower instead of the recipe's, or from a model that `tower import` takes."),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Use this BEIR folder instead of the recipe's.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a RUN that was interrupted.")] = False,
    shard: Annotated[
        bool, typer.Option("--shard", help="Share out the weights over the processes (FSDP), for a large model.")
    ] = False,
    threads: Annotated[int, typer.Option(min=0, help="Threads of each process on CPU; 0: torch's choice.")] = 0,
) -> None:
    """Train two towers and distil a small query tower, as a recipe says.

    A recipe is a TOML file with a name, a seed, a tower to start from and a list of steps: `contrastive` trains
    query and document tower on judged pairs, `distil_query` makes a small query tower out of the large one, `refine`
    trains it further against the frozen documents, `mine` looks for hard negatives; `adapt` and `splade` make sparse
    towers of a causal language model; `tas_balanced` learns from the teachers that `cross_encoder`, `score` and
    `late_interaction` make, by the topics of `cluster`. Each step takes the newest towers, or what it names of an
    earlier step. Every key of every kind, with its default, stands in docs/train.md; relative paths are relative to
    the recipe's file.

    To begin: bartizan train scalingnote --tower TOWER --data BEIR_FOLDER --out RUN

    The recipe as it was run is RUN/recipe.toml: copy it, change it, and train from the copy.

    RUN/towers/query and RUN/towers/document are the towers, for `bartizan eval`, `export` and `ingest`.
    RUN/metrics.jsonl has the losses. A run that was killed goes on with the same command and --resume, and ends with
    the same weights as if it had not been (on CPU, to the last bit). The same seed gives the same towers.

    A GPU is used when there is one. Several: accelerate launch --num_processes 4 -m bartizan_connector train …
    With --shard each holds only its part of the weights, the gradients and the optimiser's state.
    """
    require_installed((*NEEDED, "accelerate"), "train")
    import torch
    from accelerate import PartialState

    from bartizan_training.loop import train as run
    from bartizan_training.recipe import Recipe, find, shipped
    from bartizan_training.settings import is_published

    if data is not None and not data.is_dir():
        raise WrongUse(f"--data {data} is not a folder")
    if tower is not None and not Path(tower).is_dir() and not is_published(tower):
        raise WrongUse(f"--tower {tower} is not a folder")
    path = find(recipe)
    if path in shipped().values():
        _require_places(path, tower, data)
    if threads:
        torch.set_num_threads(threads)
    run(Recipe.load(path, tower=tower, data=data), out, resume=resume, shard=shard)
    if PartialState().is_main_process:
        _show(out)


def _require_places(shipped: Path, tower: str | None, data: Path | None) -> None:
    """Refuse a shipped recipe without data, or without a tower where it starts from none that can be imported."""
    from bartizan_connector.base.tables import read_toml

    own = read_toml(shipped, "recipe")["tower"] != "tower"
    if data is None or (tower is None and not own):
        raise WrongUse(
            f"the shipped recipe {shipped.stem} names no {'' if own else 'tower and no '}data of its own; give "
            f"{'' if own else '--tower TOWER and '}--data BEIR_FOLDER"
        )


def _show(out: Path) -> None:
    """Where the towers are, or what else the run made."""
    if not (out / "towers").is_dir():
        stdout.print(f"no step gives towers; what the steps made lies in {out / 'artefacts'}", markup=False)
        return
    for role in ("document", "query"):
        spec = TowerSpec.read(out / "towers" / role)
        stdout.print(f"{role:<8}  {out / 'towers' / role}  {spec.tower_id}", markup=False)
    stdout.print(f"space     {spec.space_id}", markup=False)
