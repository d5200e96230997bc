"""Where a run starts: a tower that is there, or one that it first imports from a published model."""

from dataclasses import fields

from accelerate import Accelerator

from bartizan_connector.base.console import err
from bartizan_encoders.importing import Wishes, import_tower
from bartizan_training.recipe import START, Recipe
from bartizan_training.run import Run
from bartizan_training.settings import Published
from bartizan_training.towers import TrainedTowers


def imported(recipe: Recipe, run: Run, accelerator: Accelerator) -> Recipe:
    """The recipe with the folder of a tower in the place of a published model; imported once, as an artefact of the
    run that its steps can name."""
    accelerator.wait_for_everyone()
    published = recipe.tower
    if not isinstance(published, Published):
        return recipe
    artefact = run.artefacts.of(START, "towers", {"published": published.model_dump(mode="json", exclude_none=True)})
    if accelerator.is_main_process and not artefact.exists:
        err.print(f"importing {published.source} …", markup=False)
        tower = import_tower(published.source, _wishes(published))
        with artefact.written() as folder:
            TrainedTowers(tower, tower).save(folder)
    accelerator.wait_for_everyone()
    return recipe.model_copy(update={"tower": (artefact.folder / "document").absolute()})


def _wishes(published: Published) -> Wishes:
    known = {field.name for field in fields(Wishes)}
    return Wishes(**{key: value for key, value in published if key in known and value is not None})
