"""A recipe: a TOML file that says, stage by stage, how two towers are trained."""

from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.base.tables import check, read_toml
from bartizan_training import toml
from bartizan_training.settings import RecipePath, Table
from bartizan_training.stages.contrastive import Contrastive
from bartizan_training.stages.distil_query import DistilQuery
from bartizan_training.stages.refine import Refine

StageTable = Annotated[Contrastive | DistilQuery | Refine, Field(discriminator="kind")]


class Recipe(Table):
    """The whole file. Relative paths are relative to it."""

    name: Annotated[str, Field(min_length=1)]
    """Names the towers."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Same seed, same towers."""
    tower: RecipePath
    """What the first stage starts from; each later stage starts from the stage before."""
    query_tower: RecipePath | None = None
    """What the first stage starts from for queries, when `tower` is for documents alone."""
    stages: Annotated[tuple[StageTable, ...], Field(min_length=1)]
    """In order."""

    @classmethod
    def load(cls, path: Path, *, tower: Path | None = None, data: Path | None = None) -> Self:
        """Read the file; `tower` and `data` take the place of the start tower and of every BEIR folder in it."""
        tables = read_toml(path, "recipe")
        if tower is not None:
            tables = {key: value for key, value in tables.items() if key != "query_tower"}
            tables["tower"] = str(tower.absolute())
        if data is not None:
            _put_data(tables, str(data.absolute()))
        return check(cls, tables, path, context=path.parent)

    def require_paths(self) -> None:
        """Refuse a recipe that names what is not there, be it for the last stage alone."""
        for where, path in _paths(self.model_dump()):
            if not path.exists():
                raise WrongUse(
                    f"the recipe's {where} names {path}, which is not there; relative paths are relative to the "
                    "recipe's file"
                )

    def to_toml(self) -> str:
        """Every key, defaults too, with absolute paths: it can be read from anywhere."""
        tables = self.model_dump(mode="json")
        tables["stages"] = [{"kind": stage["kind"]} | stage for stage in tables["stages"]]
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
            line for i, pair in enumerate(zip(old, new, strict=True)) for line in differences(*pair, f"{where}.{i}")
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
        for number, inner in enumerate(value):
            yield from _paths(inner, f"{where}.{number}")


def _put_data(tables: dict[str, Any], folder: str) -> None:
    """Point every BEIR folder of the recipe elsewhere; what is malformed is left for the check to name."""
    for stage in tables.get("stages", []):
        if not isinstance(stage, dict):
            continue
        sources = [source for source in stage.get("texts", []) if isinstance(source, dict)]
        beir = [source for source in sources if source.get("kind") != "lines"] + [stage.get("data")]
        for table in beir:
            if isinstance(table, dict):
                table["path"] = folder
