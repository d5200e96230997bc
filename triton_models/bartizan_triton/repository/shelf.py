"""What lies in a repository: its models, their versions, and the version that each pins."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bartizan_connector.base.errors import Stop, WrongUse
from bartizan_connector.encode.triton.contract import VERSION_PARAMETER
from bartizan_connector.space.spec import TowerSpec
from bartizan_triton.repository.config import CONFIG_FILE, ParseError, parsed
from bartizan_triton.repository.serving import Serving
from bartizan_triton.repository.text import TEXT_FILE


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One version as it lies in its folder."""

    number: int
    folder: Path
    spec: TowerSpec
    serving: Serving


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One model: towers that can replace each other."""

    name: str
    folder: Path
    versions: dict[int, Version]
    pinned: int | None
    """The version that a server loads; None: there is no configuration yet."""

    @property
    def newest(self) -> Version | None:
        """What was exported last."""
        return self.versions[max(self.versions)] if self.versions else None


def models_in(repository: Path) -> Iterator[Model]:
    """Every model, by name."""
    if not repository.is_dir():
        raise WrongUse(f"{repository} is no folder; expected a model repository (bartizan export --format triton)")
    for folder in sorted(path for path in repository.iterdir() if path.is_dir() and not path.name.startswith(".")):
        if not (folder / TEXT_FILE).exists():
            yield model_in(repository, folder.name)


def model_in(repository: Path, name: str) -> Model:
    """One model; without versions when there is none of that name."""
    folder = repository / name
    numbers = [int(path.name) for path in folder.iterdir() if path.name.isdigit()] if folder.is_dir() else []
    versions = {number: _version(folder / str(number), number) for number in sorted(numbers)}
    return Model(name=name, folder=folder, versions=versions, pinned=_pinned(folder, versions))


def _version(folder: Path, number: int) -> Version:
    return Version(number=number, folder=folder, spec=TowerSpec.read(folder), serving=Serving.read(folder))


def _pinned(folder: Path, versions: dict[int, Version]) -> int | None:
    path = folder / CONFIG_FILE
    if not path.exists():
        return None
    way_out = f"delete it and pin a version anew: bartizan repo pin {folder.parent} {folder.name} VERSION"
    try:
        named = parsed(path.read_text(encoding="utf-8")).parameters[VERSION_PARAMETER].string_value
    except (ParseError, UnicodeDecodeError) as error:
        raise Stop(f"{path} cannot be read as Triton would: {error}; {way_out}") from error
    if not named.isdigit() or int(named) not in versions:
        have = ", ".join(map(str, versions)) or "none"
        raise Stop(f"{path} pins version {named or 'none'}, but there are {have}; {way_out}")
    return int(named)
