"""Where each step of a recipe takes its artefacts from, and all that can be refused before the first step runs."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from bartizan_connector.base.errors import WrongUse
from bartizan_training.artefacts import PARTS, Kind
from bartizan_training.early_stop import Dev
from bartizan_training.recipe import START, AnyStep, Recipe
from bartizan_training.stages.stage import TrainingStep
from bartizan_training.step import under_key
from bartizan_training.towers import ROLES, PlannedTower, require_one_space


@dataclass(frozen=True, slots=True)
class Source:
    """What a step takes: the artefact of a step before, or a part of it."""

    step: str
    part: str | None
    """None: the whole artefact."""


Sources = Mapping[str, Source]
"""By the key of the step that takes it."""


def sources(recipe: Recipe) -> tuple[Sources, ...]:
    """For each step, where it takes what it takes; a name that no step before has, or of another kind, is refused."""
    given: dict[str, Kind] = {START: "towers"} if recipe.tower else {}
    found: list[Sources] = []
    for number, (name, step) in enumerate(zip(recipe.step_names, recipe.steps, strict=True), start=1):
        with _blamed(number, name):
            found.append(dict(_sources_of(step, given)))
        given[name] = step.gives
    return tuple(found)


def check_towers(recipe: Recipe, taken: Sequence[Sources]) -> Mapping[str, Mapping[str, PlannedTower]]:
    """Refuse a step whose towers will not do, as far as their form can be known now; what each step will give."""
    given: dict[str, Mapping[str, PlannedTower]] = {}
    if start := recipe.start_towers:
        require_one_space(start["document"], start["query"])
        given[START] = {str(role): PlannedTower.read(folder) for role, folder in start.items()}
    for number, (name, step) in enumerate(zip(recipe.step_names, recipe.steps, strict=True), start=1):
        towers = {
            key: given[source.step][source.part]
            for key, source in taken[number - 1].items()
            if source.part and step.takes[key] == "towers"
        }
        with _blamed(number, name):
            _require_one_space(taken[number - 1], towers)
            given[name] = step.plan(name, towers)
    return given


def check_data(recipe: Recipe, *, first: int, processes: int) -> None:
    """Read the data of the steps from number `first` on, and refuse what cannot be learned from."""
    for number, (name, step) in enumerate(zip(recipe.step_names, recipe.steps, strict=True), start=1):
        if number >= first:
            with _blamed(number, name):
                step.check_data((recipe.seed, number), processes)
                if isinstance(step, TrainingStep) and step.early_stop:
                    with under_key("early_stop"):
                        Dev.read(step.early_stop, seed=recipe.seed)


def _sources_of(step: AnyStep, given: Mapping[str, Kind]) -> Iterator[tuple[str, Source]]:
    for key, kind in step.takes.items():
        reference: str | None = getattr(step, key)
        if reference is None:
            if kind == "towers":
                newest = [name for name, gives in given.items() if gives == kind]
                if not newest:
                    raise WrongUse(
                        "there is no tower to start from: give `tower`, or let a `pretrain` step come before"
                    )
                yield key, Source(newest[-1], key)
            continue
        name, _, part = reference.partition(".")
        if name not in given:
            raise WrongUse(f"{key} = '{reference}': no step before is called '{name}'; there are {', '.join(given)}")
        if given[name] != kind:
            fitting = [other for other, gives in given.items() if gives == kind]
            there = f"these do: {', '.join(fitting)}" if fitting else "no step before does"
            raise WrongUse(f"{key} = '{reference}': step '{name}' gives {given[name]}, not {kind}; {there}")
        parts = PARTS[kind]
        if part and part not in (parts or (kind,)):
            raise WrongUse(f"{key} = '{reference}': {kind} hold only {', '.join(parts) or kind}")
        yield key, Source(name, (part or key) if parts else None)


def _require_one_space(taken: Sources, towers: Mapping[str, PlannedTower]) -> None:
    if set(towers) == set(ROLES) and towers["document"].space != towers["query"].space:
        named = " and ".join(f"{role} = '{taken[role].step}.{taken[role].part}'" for role in ROLES)
        raise WrongUse(f"{named} are towers of two spaces; take both from one step, or from steps that kept its space")


@contextmanager
def _blamed(number: int, name: str) -> Iterator[None]:
    """Name the step that a refusal is about."""
    try:
        yield
    except WrongUse as error:
        raise WrongUse(f"step {number} ('{name}'): {error}") from error
