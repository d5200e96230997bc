"""Old versions leave the repository; the pinned one, what may be rolled back to, and what is newer never do."""

import shutil
from pathlib import Path

from bartizan_connector.base.alone import alone_in
from bartizan_connector.base.aside import sync_folder
from bartizan_connector.base.errors import WrongUse
from bartizan_triton.repository.shelf import Model, Version, model_in, models_in


def superfluous(model: Model, keep: int) -> list[Version]:
    """Versions older than the pinned one, but for the `keep` newest of them."""
    if keep < 0:
        raise WrongUse(f"keep = {keep} makes no sense; expected 0 or more")
    if model.pinned is None:
        return []
    older = [version for number, version in model.versions.items() if number < model.pinned]
    return older[: len(older) - keep] if keep < len(older) else []


def prune(repository: Path, keep: int) -> list[tuple[str, Version]]:
    """Remove what is superfluous, and say what went. Renamed first, so that no half of a version stands there."""
    gone = []
    for name in [model.name for model in models_in(repository)]:
        with alone_in(repository):
            model = model_in(repository, name)
            for version in superfluous(model, keep):
                doomed = model.folder / f".{version.number}.pruned"
                shutil.rmtree(doomed, ignore_errors=True)
                version.folder.rename(doomed)
                sync_folder(model.folder)
                shutil.rmtree(doomed)
                gone.append((name, version))
    return gone
