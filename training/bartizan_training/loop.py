"""The one training loop: every step of every recipe goes through it.

RUN/recipe.toml                         the recipe with every default filled in, and the starting towers' identities
RUN/data.json                           what the files hold that its steps read: the same when it goes on
RUN/metrics.jsonl                       a line every few optimiser steps
RUN/threads                             how many threads it trains with on a CPU: the same when it goes on
RUN/artefacts/<name>-<kind>/<key>/      what the steps made: towers/{document,query}, negatives; see artefacts.py
RUN/artefacts/start-towers/<key>/       the towers to start from, when they were imported from a published model
RUN/artefacts/<role>-vectors/<key>/     vectors of towers that stay as they are; until the run is done
RUN/artefacts/<role>-tokens/<key>/      tokenised texts; until the run is done
RUN/steps/<n>-<name>/checkpoints/       the last checkpoint, while the step trains
RUN/steps/<n>-<name>/done.json          the step is done, and where its artefact lies
RUN/towers/{document,query}             the newest towers; there when the run is done

A step's effects, in order: 1 checkpoints 2 the artefact, whole and on disk 3 done.json 4 the checkpoints are deleted.
"""

import contextlib
import logging
import math
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from accelerate import Accelerator

from bartizan_connector.base.aside import folder_aside
from bartizan_connector.base.console import err
from bartizan_connector.base.errors import Stop, WrongUse
from bartizan_connector.base.paths import AnyPath, as_path
from bartizan_connector.space.spec import TowerSpec
from bartizan_encoders import cuda
from bartizan_training import adapters, checkpoint, plan, sharding
from bartizan_training.artefacts import KEPT_FOR_THE_RUN, Artefact
from bartizan_training.checkpoint import Kept, State
from bartizan_training.early_stop import Watch
from bartizan_training.metrics import Metrics
from bartizan_training.plan import Sources
from bartizan_training.prefetch import Prefetcher
from bartizan_training.progress import progress
from bartizan_training.recipe import START, AnyStep, Recipe
from bartizan_training.run import Run
from bartizan_training.settings import Training
from bartizan_training.stages.stage import Stage, TrainingStep
from bartizan_training.starting import imported
from bartizan_training.step import MakingStep, Place, Taken
from bartizan_training.threads import settle
from bartizan_training.towers import ROLES, link

log = logging.getLogger(__name__)


def train(recipe: Recipe, out: AnyPath, *, resume: bool = False, shard: bool = False, threads: int = 0) -> None:
    """Run every step that is not done yet; on a CPU with so many threads, 0: as suits the cores that are idle.
    `shard`: with the weights of what is trained shared out (see sharding)."""
    if not isinstance(recipe, Recipe):
        raise WrongUse(f"train takes a Recipe (Recipe.load reads one), but {recipe!r:.80} came")
    accelerator, run = Accelerator(), Run(as_path(out, "the folder of the run"))
    sharded = sharding.wanted(accelerator, shard=shard)
    if sharded and any(isinstance(step, Training) and step.early_stop for step in recipe.steps):
        raise WrongUse("early_stop judges whole towers while they are trained: leave it out, or --shard")
    cuda.settle(accelerator.device)
    taken = plan.sources(recipe)
    if accelerator.is_main_process:
        run.require_place(resume=resume)
    recipe = imported(recipe, run, accelerator)
    if accelerator.is_main_process:
        run.open(recipe, taken, processes=accelerator.num_processes)
    accelerator.wait_for_everyone()
    settle(accelerator, run.threads, threads)
    made: dict[str, Artefact] = {}
    for number, (name, table) in enumerate(zip(recipe.step_names, recipe.steps, strict=True), start=1):
        place = Place(
            accelerator=accelerator,
            folder=run.step_folder(number, name),
            artefacts=run.artefacts,
            name=recipe.name,
            number=number,
            recipe_seed=recipe.seed,
            sharded=sharded,
        )
        done = run.done(number, name)
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            state = "is done already" if done else "begins"
            log.info("step %d of %d, %s: %s", number, len(recipe.steps), name, state)
        if done is None:
            with run.unbegun_when_refused(accelerator):
                if accelerator.is_main_process:
                    run.keep_data(recipe, number)
                paths = _paths(recipe, taken[number - 1], made)
                done = run.artefacts.of(name, table.gives, _made_from(table, place, paths))
                _perform(table, paths, place, done, run)
        made[name] = done
    if accelerator.is_main_process:
        _finish(recipe, run, made)
    accelerator.wait_for_everyone()


def _perform(table: AnyStep, taken: Taken, place: Place, artefact: Artefact, run: Run) -> None:
    """Run one step, unless its artefact is there already."""
    accelerator = place.accelerator
    exists = artefact.exists
    accelerator.wait_for_everyone()
    if not exists and isinstance(table, MakingStep):
        with artefact.written_by_all(accelerator) as folder:
            table.make(taken, place, folder)
    elif not exists and isinstance(table, TrainingStep):
        torch.manual_seed(_seed(place, step=0))
        stage = table.stage(taken, place)
        fit(stage, table, place, run.metrics)
        if accelerator.is_main_process:
            if table.lora:
                adapters.merge(stage)
            with artefact.written() as folder:
                stage.finish().save(folder)
    if accelerator.is_main_process:
        run.note_done(place.folder, artefact)
        shutil.rmtree(place.folder / "checkpoints", ignore_errors=True)
    accelerator.wait_for_everyone()


def fit(stage: Stage, table: TrainingStep, place: Place, metrics_path: Path) -> None:
    """Train the stage's parameters: go on where the last checkpoint was made, step, log, save."""
    accelerator = place.accelerator
    steps = table.length(stage.batches_per_epoch)
    model, optimizer, kept = _prepared(stage, table, place)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state = State(step=0, processes=accelerator.num_processes, examples=stage.fingerprint, sharded=place.sharded)
    state = checkpoint.load(kept, place.folder / "checkpoints", state)
    done = state.step
    watch = Watch(stage, table, table.early_stop, place, state.standing) if table.early_stop else None
    metrics = Metrics(metrics_path, accelerator, stage=place.number, kind=table.kind)
    metrics.forget_after(done)
    numbers = range(done * table.accumulate, steps * table.accumulate)
    with (
        progress(accelerator, f"stage {place.number}, {table.kind}", total=steps, begun=done) as tick,
        Prefetcher(stage.batch, numbers, accelerator.device) as batches,
        _memory_explained(table),
    ):
        alarms: Mapping[str, str] = {}
        while done < steps and not (watch and watch.over):
            if table.dropout:
                torch.manual_seed(_seed(place, step=done))
            due = watch is not None and watch.due(done + 1, steps)
            save = due or (done + 1) % table.checkpoint_every == 0 or done + 1 == steps
            stage.noting = save or (done + 1) % table.log_every == 0
            rate = table.learning_rate * slope(done, steps, table.warmup, table.schedule)
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss, tokens = torch.zeros((), device=accelerator.device), 0
            for part in range(table.accumulate):
                batch = next(batches)
                last = part == table.accumulate - 1
                with contextlib.nullcontext() if last else accelerator.no_sync(model):
                    part_loss = model(batch) / table.accumulate
                    accelerator.backward(part_loss)
                loss, tokens = loss + part_loss.detach(), tokens + batch.tokens
            norm = sharding.whole(accelerator.clip_grad_norm_(parameters, table.clip))
            optimizer.step()
            optimizer.zero_grad()
            done += 1
            metrics.add(loss, norm, tokens, stage.notes)
            told = metrics.write(done, rate, watch.look if watch and due else None) if stage.noting else {}
            tick(note=f"loss {told['loss']:.4f}" if told else "")
            if stage.noting:
                alarms = _warn(stage.alarms(told), alarms, done, place)
            if save:
                state = replace(state, step=done, standing=watch.standing if watch else state.standing)
                checkpoint.save(accelerator, kept, place.folder / "checkpoints", state)
                if watch:
                    watch.forget_older()
    if watch:
        watch.restore(done)
    accelerator.free_memory()
    adapters.as_they_were(stage)
    if place.sharded:
        sharding.bring_together(stage, keep=accelerator.is_main_process)


def _prepared(stage: Stage, table: TrainingStep, place: Place) -> tuple[Any, torch.optim.Optimizer, Kept]:
    """The stage as it is called, the optimiser of what is not frozen, and what a checkpoint holds of both."""
    adapters.freeze(stage, table)
    if table.gradient_checkpointing:
        adapters.compute_anew(stage)
    stage.train(table.dropout)
    if place.sharded:
        sharding.share_out(stage, place.accelerator)
        optimizer = _optimizer(stage, table)
        return stage, optimizer, sharding.Shards(stage, optimizer)
    adapters.save_what_is_trained(stage)
    model, optimizer = place.accelerator.prepare(stage, _optimizer(stage, table))
    return model, optimizer, place.accelerator


def _warn(alarms: Mapping[str, str], before: Mapping[str, str], step: int, place: Place) -> Mapping[str, str]:
    """Say each alarm when it begins, and when it ends."""
    if place.accelerator.is_main_process:
        for figure, told in alarms.items():
            if figure not in before:
                err.print(f"warning: step {place.number}, after {step} optimiser steps: {told}", markup=False)
        for figure in sorted(before.keys() - alarms.keys()):
            err.print(f"step {place.number}, after {step} optimiser steps: {figure} is well again", markup=False)
    return alarms


def _optimizer(stage: Stage, table: Training) -> torch.optim.Optimizer:
    """AdamW over what is not frozen; no decay of biases and norms."""
    trained = [parameter for parameter in stage.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in trained if parameter.ndim > 1], "weight_decay": table.weight_decay},
        {"params": [parameter for parameter in trained if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    if table.optimizer == "adafactor":
        return torch.optim.Adafactor(groups, lr=table.learning_rate)
    return torch.optim.AdamW(groups, lr=table.learning_rate, fused=True)


def slope(step: int, steps: int, warmup: float, schedule: Literal["linear", "cosine"]) -> float:
    """Share of the peak rate: a linear rise, then a fall that would reach 0 one step after the last."""
    rise = round(warmup * steps)
    if step < rise:
        return (step + 1) / (rise + 1)
    left = (steps - step) / (steps - rise)
    return left if schedule == "linear" else (1 - math.cos(math.pi * left)) / 2


def _seed(place: Place, step: int) -> int:
    """For what is random inside a step (dropout); with it a resumed run needs no stored random state."""
    sequence = np.random.SeedSequence([*place.seed, step, place.accelerator.process_index])
    return int(sequence.generate_state(1, np.uint64)[0] >> 1)


def _paths(recipe: Recipe, taken: Sources, made: dict[str, Artefact]) -> Taken:
    """Where each artefact lies that a step takes."""
    starts: Mapping[str, Path] = {str(role): folder for role, folder in recipe.start_towers.items()}
    paths: dict[str, Path] = {}
    for key, source in taken.items():
        if source.step == START and source.part:
            paths[key] = starts[source.part]
        else:
            folder = made[source.step].folder
            paths[key] = folder / source.part if source.part else folder
    return paths


def _made_from(table: AnyStep, place: Place, taken: Taken) -> dict[str, object]:
    """All that a step's artefact depends on."""
    identities = {
        key: TowerSpec.read(path).tower_id if table.takes[key] == "towers" else path.name for key, path in taken.items()
    }
    return {"name": place.name, "seed": list(place.seed), "step": table.made_from(), "takes": identities}


def _finish(recipe: Recipe, run: Run, made: dict[str, Artefact]) -> None:
    """Put the newest towers where everybody looks for them, and drop what only the run needed."""
    newest = [made[name] for name, step in zip(recipe.step_names, recipe.steps, strict=True) if step.gives == "towers"]
    if newest and not _are_there(newest[-1].folder, run.towers):
        with folder_aside(run.towers, marker="query") as fresh:
            for role in ROLES:
                link(newest[-1].folder / role, fresh / role)
    for kind in KEPT_FOR_THE_RUN:
        run.artefacts.drop(kind)


def _are_there(towers: Path, folder: Path) -> bool:
    return folder.is_dir() and all(TowerSpec.read(towers / role) == TowerSpec.read(folder / role) for role in ROLES)


@contextlib.contextmanager
def _memory_explained(table: Training) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise Stop(
            f"the device's memory is too small for batch_size = {table.batch_size}: lower it (and raise accumulate), "
            f"or lower max_tokens, or set precision = 'bf16'; then train again into another --out ({error})"
        ) from error
