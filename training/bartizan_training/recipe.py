"""A recipe: a TOML file that says, step by step, how towers are trained."""

from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.base.paths import AnyPath, as_path
from bartizan_connector.base.tables import check, read_toml
from bartizan_connector.space.spec import SPEC_FILE, Role, TowerSpec
from bartizan_training import toml
from bartizan_training.mine.cluster import Cluster
from bartizan_training.mine.exact import Mine
from bartizan_training.settings import Published, RecipePath, Start, Table, Training
from bartizan_training.stages.adapt import Adapt
from bartizan_training.stages.calibrate import Calibrate
from bartizan_training.stages.contrastive import Contrastive
from bartizan_training.stages.cross_encoder import CrossEncoding
from bartizan_training.stages.distil_query import DistilQuery
from bartizan_training.stages.late_interaction import LateInteracting
from bartizan_training.stages.pretrain import Pretrain
from bartizan_training.stages.refine import Refine
from bartizan_training.stages.splade import Splade
from bartizan_training.stages.tas_balanced import TasBalanced
from bartizan_training.teachers.score import Score

AnyStep = Annotated[
    Adapt
    | Calibrate
    | Contrastive
    | DistilQuery
    | Refine
    | Pretrain
    | Splade
    | Mine
    | Cluster
    | CrossEncoding
    | Score
    | LateInteracting
    | TasBalanced,
    Field(discriminator="kind"),
]

START = "start"
"""The name under which steps take the towers that the recipe starts from."""


class Recipe(Table):
    """The whole file. Relative paths are relative to it."""

    name: Annotated[str, Field(min_length=1)]
    """Names the towers."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Same seed, same towers."""
    tower: Start | None = None
    """What the first step starts from, as `start.document` and `start.query`; none: a `pretrain` step makes a start."""
    query_tower: RecipePath | None = None
    """What the first step starts from for queries, when `tower` is for documents alone."""
    identities: dict[str, str] | None = None
    """`tower_id` of each tower that the run starts from, by its key; written by the run, which refuses any other."""
    steps: Annotated[tuple[AnyStep, ...], Field(min_length=1)]
    """In order."""

    @model_validator(mode="after")
    def _one_name_each(self) -> Self:
        given = [step.name for step in self.steps if step.name is not None]
        if START in given or len(set(given)) != len(given) or len(set(self.step_names)) != len(self.steps):
            raise ValueError(
                f"each step needs a name of its own, other than '{START}'; they are {', '.join(self.step_names)}"
            )
        return self

    @property
    def step_names(self) -> tuple[str, ...]:
        """What each step is called."""
        names: list[str] = []
        for step in self.steps:
            name, number = step.name or step.kind, 1
            while step.name is None and name in names:
                number += 1
                name = f"{step.kind}-{number}"
            names.append(name)
        return tuple(names)

    @property
    def start_towers(self) -> dict[Role, Path]:
        """The towers of the step `start`, which are there; none for a recipe that makes its own."""
        if self.tower is None:
            return {}
        if isinstance(self.tower, Published):
            raise WrongUse(f"tower = '{self.tower.source}' is to be imported before the first step")
        return {"document": self.tower, "query": self.query_tower or self.tower}

    @property
    def starts(self) -> dict[str, Path]:
        """Every tower that the run starts from, by its key; one that is to be imported is none yet."""
        starts = {"tower": self.tower} if isinstance(self.tower, Path) else {}
        starts |= {"query_tower": self.query_tower} if self.query_tower else {}
        for name, step in zip(self.step_names, self.steps, strict=True):
            if step.brings and isinstance(came := getattr(step, step.brings), Path):
                starts[f"{name}.{step.brings}"] = came
        return starts

    @classmethod
    def load(
        cls,
        path: AnyPath,
        *,
        tower: Path | str | None = None,
        data: Path | None = None,
        seed: int | None = None,
        limit: int | None = None,
    ) -> Self:
        """Read the file; `tower` and `data` take the place of the start tower and of every BEIR folder in it. A tower
        given as text may name a published model, which is imported as the file says where it imports one itself.
        `limit` is set for every step that trains."""
        path = as_path(path, "the recipe")
        tables = read_toml(path, "recipe")
        if tower is not None:
            if "tower" not in tables and any(_makes_its_own(step) for step in tables.get("steps", [])):
                raise WrongUse(f"{path} makes the tower that it starts from: leave --tower {tower} out")
            tables = {key: value for key, value in tables.items() if key != "query_tower"}
            tables["tower"] = _start(tower, tables.get("tower"))
            if isinstance(tables.get("identities"), dict):
                of_others = tables["identities"].items()
                tables["identities"] = {key: id for key, id in of_others if key not in ("tower", "query_tower")}
        if data is not None:
            _put_data(tables, str(data.absolute()))
        if seed is not None:
            tables["seed"] = seed
        recipe = check(cls, tables, path, context=path.parent)
        return recipe if limit is None else recipe.limited(limit)

    def limited(self, steps: int) -> Self:
        """The recipe as a try-out: no step that trains takes more optimiser steps."""

        def limited(step: AnyStep) -> AnyStep:
            return step.model_copy(update={"limit": steps}) if isinstance(step, Training) else step

        return self.model_copy(update={"steps": tuple(limited(step) for step in self.steps)})

    def identified(self) -> Self:
        """The recipe with the `tower_id` of each tower that it starts from, as it is now; one that is not there any
        more keeps the one that was noted."""
        there = {key: path for key, path in self.starts.items() if (path / SPEC_FILE).exists()}
        present = {key: TowerSpec.read(path).tower_id for key, path in there.items()}
        noted = {key: id for key, id in (self.identities or {}).items() if key in self.starts}
        return self.model_copy(update={"identities": noted | present})

    @property
    def step_files(self) -> Iterator[tuple[int, Path]]:
        """Every file of data that a step rests on, with the step's number."""
        for number, step in enumerate(self.steps, start=1):
            for file in step.rests_on():
                yield number, file

    def require_paths(self) -> None:
        """Refuse a recipe that names what is not there, be it for the last step alone."""
        for where, path in _paths(self.model_dump()):
            if not path.exists():
                raise WrongUse(
                    f"the recipe's {where} names {path}, which is not there; relative paths are relative to the "
                    "recipe's file"
                )

    def facts(self, steps: int) -> dict[str, Any]:
        """What decides the first so many steps, every default filled in."""
        tables = self.model_dump(mode="json", exclude={"identities"})
        named = zip(self.step_names, tables["steps"], strict=True)
        return tables | {"steps": [step | {"name": name} for name, step in named][:steps]}

    def to_toml(self) -> str:
        """Every key, defaults too, with absolute paths: it can be read from anywhere."""
        tables = self.model_dump(mode="json")
        tables["steps"] = [{"kind": step["kind"]} | step for step in tables["steps"]]
        return toml.dump(tables)


def shipped() -> Mapping[str, Path]:
    """The recipes that come with the package, by name."""
    folder = Path(str(files("bartizan_training"))) / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def find(recipe: str) -> Path:
    """The file that a person means: a path, or the name of a shipped recipe."""
    if Path(recipe).exists() or recipe not in shipped():
        if not Path(recipe).is_file():
            raise WrongUse(f"{recipe} is neither a file nor one of the shipped recipes: {', '.join(shipped())}")
        return Path(recipe)
    return shipped()[recipe]


def differences(old: Any, new: Any, where: str = "") -> list[str]:
    """What differs between two resolved recipes, key by key."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = sorted({*old, *new})
        return [line for key in keys for line in differences(old.get(key), new.get(key), f"{where}.{key}")]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [
            line
            for i, pair in enumerate(zip(old, new, strict=True), start=1)
            for line in differences(*pair, f"{where}.{i}")
        ]
    return [] if old == new else [f"{where.removeprefix('.')} was {old!r}, is {new!r}"]


def _paths(value: Any, where: str = "") -> Iterator[tuple[str, Path]]:
    """Every path in a resolved recipe, with its key."""
    if isinstance(value, Path):
        yield where.removeprefix("."), value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _paths(inner, f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value, start=1):
            yield from _paths(inner, f"{where}.{number}")


def _start(tower: Path | str, instead_of: Any) -> Any:
    """What stands for the start tower that the command line names."""
    if isinstance(tower, Path) or Path(tower).is_dir():
        return str(Path(tower).absolute())
    return instead_of | {"source": tower} if isinstance(instead_of, dict) else {"source": tower}


def _makes_its_own(step: Any) -> bool:
    return isinstance(step, dict) and step.get("kind") == "pretrain"


def _put_data(tables: dict[str, Any], folder: str) -> None:
    """Point every BEIR folder of the recipe elsewhere; what is malformed is left for the check to name."""
    for step in tables.get("steps", []):
        if not isinstance(step, dict):
            continue
        sources = [source for source in step.get("texts", []) if isinstance(source, dict)]
        mined = step if step.get("kind") == "mine" else None
        beir = [source for source in sources if source.get("kind") != "lines"] + [step.get("data"), mined]
        for table in beir:
            if isinstance(table, dict) and ("path" in table or table.get("kind") not in ("tsv", "records")):
                table["path"] = folder
            if isinstance(table, dict) and "held_out" in table:
                table["held_out"] = folder
        if isinstance(step.get("early_stop"), dict):
            step["early_stop"]["data"] = folder
