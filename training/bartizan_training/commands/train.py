"""`bartizan train`: runs a recipe, step by step."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bartizan_connector.base.console import out as stdout
from bartizan_connector.base.errors import WrongUse, interruptible, require_installed
from bartizan_connector.space.spec import TowerSpec
from bartizan_encoders import NEEDED

if TYPE_CHECKING:
    from bartizan_training.recipe import Recipe

_SHIPPED = ", ".join(sorted(path.stem for path in (Path(__file__).parents[1] / "recipes").glob("*.toml")))


def train(
    recipe: Annotated[str, typer.Argument(help=f"A recipe file, or the name of a shipped recipe: {_SHIPPED}.")],
    out: Annotated[Path | None, typer.Option(help="RUN, the folder that the run makes.")] = None,
    tower: Annotated[
        str | None,
        typer.Option(help="Start from this tower instead of the recipe's, or from a model that `tower import` takes."),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Use this BEIR folder instead of the recipe's.")] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="A try-out: no step that trains takes more than N optimiser steps."),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Use this seed instead of the recipe's.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what the recipe will do and take; write nothing.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a RUN that was interrupted.")] = False,
    threads: Annotated[
        int, typer.Option(min=0, help="Threads of each process on CPU; 0: as many as cores are idle.")
    ] = 0,
    shard: Annotated[
        bool, typer.Option("--shard", help="Share out the weights over the processes (FSDP), for a large model.")
    ] = False,
) -> None:
    """Train two towers and distil a small query tower, as a recipe says.

    A recipe is a TOML file with a name, a seed, a tower to start from and a list of steps: `contrastive` trains
    query and document tower on judged pairs, `distil_query` makes a small query tower out of the large one, `refine`
    trains it further against the frozen documents, `mine` looks for hard negatives; `adapt`, `calibrate` and `splade`
    make sparse towers of a causal language model; `tas_balanced` learns from the teachers that `cross_encoder`,
    `score` and `late_interaction` make, by the topics of `cluster`; `pretrain` makes a small language model, and a
    recipe that begins with it needs no tower. Each step takes the newest towers, or what it names of an earlier step.
    Every key, with its default, stands in docs/recipes.md; paths are relative to the recipe's file.

    To begin: bartizan train scalingnote-small --data BEIR_FOLDER --out RUN

    --limit N makes a try-out: at most N optimiser steps for each step that trains (mine, score and cluster do all of
    their work). --dry-run counts examples and tokens, times some on the real towers, and says how long it will take.

    The recipe as it was run is RUN/recipe.toml: copy it, change it, and train from the copy. RUN/towers/query and
    RUN/towers/document are the towers, for `bartizan eval`, `export` and `ingest`; RUN/metrics.jsonl has the losses. A
    run that was killed goes on with the same command and --resume, and ends with the same weights as if it had not
    been (on CPU, to the last bit). The same seed gives the same towers.

    A GPU is used where there is one. Several: accelerate launch --num_processes 4 -m bartizan_connector train …
    """
    require_installed((*NEEDED, "accelerate"), "train")
    from accelerate import PartialState

    from bartizan_training.loop import train as run

    loaded = _recipe(recipe, tower, data, seed, limit)
    if dry_run:
        return _show_forecast(loaded)
    if out is None:
        raise WrongUse("give --out RUN, the folder that the run makes; or --dry-run, which writes nothing")
    with interruptible("go on with the same command and --resume: what the last checkpoint holds is not trained again"):
        run(loaded, out, resume=resume, shard=shard, threads=threads)
    if PartialState().is_main_process:
        _show(out)


def require_start(tower: str | None) -> None:
    """Refuse a start that is neither a folder nor the name of a published model."""
    from bartizan_training.settings import is_published

    if tower is not None and not Path(tower).is_dir() and not is_published(tower):
        raise WrongUse(f"--tower {tower} is not a folder")


def _recipe(recipe: str, tower: str | None, data: Path | None, seed: int | None, limit: int | None) -> "Recipe":
    """The recipe with what the command line says in the place of its own."""
    from bartizan_training.recipe import Recipe, find, shipped

    if data is not None and not data.is_dir():
        raise WrongUse(f"--data {data} is not a folder")
    require_start(tower)
    path = find(recipe)
    if path in shipped().values() and data is None:
        raise WrongUse(f"the shipped recipe {path.stem} names no data of its own; give --data BEIR_FOLDER")
    return Recipe.load(path, tower=tower, data=data, seed=seed, limit=limit)


def _show(out: Path) -> None:
    """Where the towers are, or what else the run made."""
    if not (out / "towers").is_dir():
        stdout.print(f"no step gives towers; what the steps made lies in {out / 'artefacts'}", markup=False)
        return
    for role in ("document", "query"):
        spec = TowerSpec.read(out / "towers" / role)
        stdout.print(f"{role:<8}  {out / 'towers' / role}  {spec.tower_id}", markup=False)
    stdout.print(f"space     {spec.space_id}", markup=False)


def _show_forecast(recipe: "Recipe") -> None:
    """A table of the steps, and the sum of their times."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from bartizan_training.dry_run import forecast

    found = forecast(recipe)
    table = Table("step", "kind", box=SIMPLE_HEAD, pad_edge=False)
    for title in ("steps", "examples", "tokens", "time", "memory"):
        table.add_column(title, justify="right", no_wrap=True)
    for step in found:
        steps = "" if step.steps is None else f"{step.steps:,}"
        taken = ("?", "?", "?") if step.seconds is None else _taken(step.tokens, step.seconds, step.memory)
        table.add_row(step.name, step.kind, steps, f"{step.examples:,}", *taken)
    stdout.print(table)
    stdout.print(
        f"about {_time(sum(step.seconds or 0 for step in found))} in all, on this machine as busy as it is now"
    )
    stdout.print("time: measured on some of the texts; memory: weights and moments counted, the rest measured")


def _taken(tokens: int, seconds: float, memory: int) -> tuple[str, str, str]:
    return f"{tokens:,}", _time(seconds), f"{memory / 2**30:.1f} GiB"


def _time(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
