"""The one training loop: every stage of every recipe goes through it.

RUN/recipe.toml                        the recipe with every default filled in
RUN/metrics.jsonl                      a line every few steps
RUN/stages/<n>-<kind>/checkpoints/     the last checkpoint, while the stage runs
RUN/stages/<n>-<kind>/frozen/          vectors of frozen towers, while the stage runs
RUN/stages/<n>-<kind>/towers/          what the stage made; there when it is done
RUN/towers/{document,query}            the last stage's towers; there when the run is done
"""

import contextlib
import os
import shutil
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator

from bartizan_connector.base.aside import folder_aside
from bartizan_connector.base.errors import Stop, WrongUse
from bartizan_connector.space.spec import SPEC_FILE
from bartizan_encoders.tower import Tower
from bartizan_training import checkpoint
from bartizan_training.checkpoint import State
from bartizan_training.metrics import Metrics
from bartizan_training.progress import watched
from bartizan_training.recipe import Recipe, StageTable, differences
from bartizan_training.settings import Training
from bartizan_training.stages.stage import Place, Stage, Towers, Trained


def train(recipe: Recipe, out: Path, *, resume: bool = False) -> None:
    """Run every stage that is not done yet."""
    accelerator = Accelerator()
    if accelerator.is_main_process:
        _open_run(recipe, out, resume=resume)
    accelerator.wait_for_everyone()
    towers = {"document": recipe.tower, "query": recipe.query_tower or recipe.tower}
    for number, table in enumerate(recipe.stages, start=1):
        folder = out / "stages" / f"{number}-{table.kind}"
        if not (folder / "towers").is_dir():
            place = Place(
                accelerator=accelerator, folder=folder, name=recipe.name, number=number, recipe_seed=recipe.seed
            )
            with _unbegun_when_refused(accelerator, out):
                torch.manual_seed(_seed(place, step=0))
                stage = table.build(Towers.load(towers["document"], towers["query"]), place)
                fit(stage, table, place, out / "metrics.jsonl")
            if accelerator.is_main_process:
                _save(stage.finish(), towers["document"], folder / "towers")
                for scratch in ("checkpoints", "frozen"):
                    shutil.rmtree(folder / scratch, ignore_errors=True)
            accelerator.wait_for_everyone()
        towers = {role: folder / "towers" / role for role in towers}
    if accelerator.is_main_process and not (out / "towers").is_dir():
        with folder_aside(out / "towers", marker=SPEC_FILE) as fresh:
            for role, tower in towers.items():
                _link(tower, fresh / role)
    accelerator.wait_for_everyone()


def fit(stage: Stage, table: StageTable, place: Place, metrics_path: Path) -> None:
    """Train the stage's parameters: go on where the last checkpoint was made, step, log, save."""
    accelerator = place.accelerator
    steps = table.length(stage.batches_per_epoch)
    optimizer = _optimizer(stage, table)
    model, optimizer = accelerator.prepare(stage.train(table.dropout), optimizer)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state = State(step=0, processes=accelerator.num_processes, examples=stage.fingerprint)
    done = checkpoint.load(accelerator, place.folder / "checkpoints", state)
    metrics = Metrics(metrics_path, accelerator, stage=place.number, kind=table.kind)
    metrics.forget_after(done)
    with watched(accelerator, f"stage {place.number}, {table.kind}", total=steps) as tick, _memory_explained(table):
        tick(done)
        while done < steps:
            if table.dropout:
                torch.manual_seed(_seed(place, step=done))
            rate = table.learning_rate * _slope(done, steps, table.warmup)
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss, tokens = torch.zeros((), device=accelerator.device), 0
            for part in range(table.accumulate):
                batch = stage.batch(done * table.accumulate + part).to(accelerator.device)
                last = part == table.accumulate - 1
                with contextlib.nullcontext() if last else accelerator.no_sync(model):
                    part_loss = model(batch) / table.accumulate
                    accelerator.backward(part_loss)
                loss, tokens = loss + part_loss.detach(), tokens + batch.tokens
            norm = accelerator.clip_grad_norm_(parameters, table.clip)
            optimizer.step()
            optimizer.zero_grad()
            done += 1
            tick()
            metrics.add(loss, norm, tokens)
            save = done % table.checkpoint_every == 0 or done == steps
            if save or done % table.log_every == 0:
                metrics.write(done, rate)
            if save:
                checkpoint.save(accelerator, place.folder / "checkpoints", replace(state, step=done))
    accelerator.free_memory()


def _optimizer(stage: Stage, table: Training) -> torch.optim.Optimizer:
    """AdamW over what is not frozen; no decay of biases and norms."""
    if table.freeze_embeddings:
        for module in stage.modules():
            if isinstance(module, Tower):
                module.backbone.get_input_embeddings().requires_grad_(False)
    trained = [parameter for parameter in stage.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in trained if parameter.ndim > 1], "weight_decay": table.weight_decay},
        {"params": [parameter for parameter in trained if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=table.learning_rate, fused=True)


def _slope(step: int, steps: int, warmup: float) -> float:
    """Share of the peak rate: a linear rise, then a linear fall that would reach 0 one step after the last."""
    rise = round(warmup * steps)
    return (step + 1) / (rise + 1) if step < rise else (steps - step) / (steps - rise)


def _seed(place: Place, step: int) -> int:
    """For what is random inside a step (dropout); with it a resumed run needs no stored random state."""
    sequence = np.random.SeedSequence([*place.seed, step, place.accelerator.process_index])
    return int(sequence.generate_state(1, np.uint64)[0] >> 1)


def _open_run(recipe: Recipe, out: Path, *, resume: bool) -> None:
    """Make RUN, or check that what is there is the same recipe's."""
    path, text = out / "recipe.toml", recipe.to_toml()
    if not path.exists():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise WrongUse(f"{out} exists and is not a run (it has no recipe.toml); give a new folder")
        recipe.require_paths()
        try:
            out.mkdir(parents=True, exist_ok=True)
            aside = path.with_suffix(".part")
            aside.write_text(text, encoding="utf-8")
            aside.rename(path)
        except OSError as error:
            raise Stop(f"cannot write {out}: {error.strerror}") from error
        return
    if not resume:
        raise WrongUse(f"{out} exists already; go on with it by --resume, or give a new folder")
    changed = differences(tomllib.loads(path.read_text(encoding="utf-8")), tomllib.loads(text))
    if changed:
        raise WrongUse(
            f"{out} was begun with another recipe ({'; '.join(changed)}); resume with the recipe as it was "
            f"({path}), or train into a new folder"
        )


@contextlib.contextmanager
def _unbegun_when_refused(accelerator: Accelerator, out: Path) -> Iterator[None]:
    """A run that fails before it has made anything leaves no recipe, so that the mended command may have its folder."""
    try:
        yield
    except BaseException:
        if accelerator.is_main_process and [path.name for path in out.iterdir()] == ["recipe.toml"]:
            (out / "recipe.toml").unlink()
        raise


def _save(trained: Trained, frozen_document: Path, folder: Path) -> None:
    """Write both towers at once; one that stayed as it was is linked."""
    with folder_aside(folder, marker=SPEC_FILE) as fresh:
        trained.query.save(fresh / "query")
        if trained.document is None:
            _link(frozen_document, fresh / "document")
        elif trained.document is trained.query:
            _link(fresh / "query", fresh / "document")
        else:
            trained.document.save(fresh / "document")


def _link(tower: Path, folder: Path) -> None:
    """The tower under another name; a tower's files never change, so they may be shared where the disk allows it."""

    def link_or_copy(source: str, target: str) -> None:
        try:
            os.link(source, target)
        except OSError:
            shutil.copyfile(source, target)

    shutil.copytree(tower, folder, copy_function=link_or_copy)


@contextlib.contextmanager
def _memory_explained(table: Training) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise Stop(
            f"the device's memory is too small for batch_size = {table.batch_size}: lower it (and raise accumulate), "
            f"or lower max_tokens, or set precision = 'bf16'; then train again into another --out ({error})"
        ) from error
