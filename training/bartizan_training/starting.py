"""Where a run starts: a tower that is there, or one that it first imports from a published model."""

from accelerate import Accelerator

from bartizan_connector.base.console import err
from bartizan_encoders.importing import import_tower
from bartizan_training.recipe import START, Recipe
from bartizan_training.run import Run
from bartizan_training.settings import Published
from bartizan_training.towers import TrainedTowers, wishes


def imported(recipe: Recipe, run: Run, accelerator: Accelerator) -> Recipe:
    """The recipe with the folder of a tower in the place of a published model; imported once, as an artefact of the
    run that its steps can name."""
    accelerator.wait_for_everyone()
    published = recipe.tower
    if not isinstance(published, Published):
        return recipe
    facts: dict[str, object] = {"published": published.model_dump(mode="json", exclude_none=True)}
    if published.dim is not None:
        facts["seed"] = recipe.seed
    artefact = run.artefacts.of(START, "towers", facts)
    if accelerator.is_main_process and not artefact.exists:
        err.print(f"importing {published.source} …", markup=False)
        tower = import_tower(published.source, wishes(published, seed=recipe.seed))
        with artefact.written() as folder:
            TrainedTowers(tower, tower).save(folder)
    accelerator.wait_for_everyone()
    return recipe.model_copy(update={"tower": (artefact.folder / "document").absolute()})
