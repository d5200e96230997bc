"""Where a run starts: towers that are there, or published models that it first imports."""

from collections.abc import Callable
from pathlib import Path

from accelerate import Accelerator

from bartizan_connector.base.console import err
from bartizan_encoders.importing import import_tower
from bartizan_training.recipe import START, AnyStep, Recipe
from bartizan_training.run import Run
from bartizan_training.settings import Published
from bartizan_training.towers import TrainedTowers, wishes


def imported(recipe: Recipe, run: Run, accelerator: Accelerator) -> Recipe:
    """The recipe with the folder of a tower in the place of each published model; imported once, as an artefact of the
    run that its steps can name."""
    accelerator.wait_for_everyone()

    def into_the_run(published: Published) -> Path:
        made_from: dict[str, object] = {"published": published.model_dump(mode="json", exclude_none=True)}
        if published.dim is not None:
            made_from["seed"] = recipe.seed
        artefact = run.artefacts.of(START, "towers", made_from)
        if accelerator.is_main_process and not artefact.exists:
            with artefact.written() as folder:
                import_into(folder, published, seed=recipe.seed)
        return (artefact.folder / "document").absolute()

    ready = with_folders(recipe, into_the_run)
    accelerator.wait_for_everyone()
    return ready


def import_into(folder: Path, published: Published, *, seed: int) -> None:
    """Import the model as both towers of the folder."""
    err.print(f"importing {published.source} …", markup=False)
    tower = import_tower(published.source, wishes(published, seed=seed))
    TrainedTowers(tower, tower).save(folder)


def with_folders(recipe: Recipe, folder_of: Callable[[Published], Path]) -> Recipe:
    """The recipe with a folder for each published model in it."""

    def ready(step: AnyStep) -> AnyStep:
        if step.brings and isinstance(came := getattr(step, step.brings), Published):
            return step.model_copy(update={step.brings: folder_of(came)})
        return step

    tower = folder_of(recipe.tower) if isinstance(recipe.tower, Published) else recipe.tower
    return recipe.model_copy(update={"tower": tower, "steps": tuple(ready(step) for step in recipe.steps)})
