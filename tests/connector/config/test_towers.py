"""The towers that a configuration names: a leg for each space, and no space twice."""

from pathlib import Path

import pytest

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.config import Config
from bartizan_connector.config.towers import collection_of

EXPORTS = Path(__file__).parents[3] / "tests/fixtures/0.1.0/exports"


def config(folder: Path, spaces: str) -> Config:
    path = folder / "bartizan.toml"
    path.write_text(f'[collection]\nname = "docs"\n{spaces}', encoding="utf-8")
    return Config.load(path, {})


def test_each_space_is_a_leg_of_its_name(tmp_path: Path) -> None:
    made = collection_of(config(tmp_path, f'[spaces.meaning]\ndocument_tower = "{EXPORTS}/document"\n'))
    assert [(leg.name, leg.kind, leg.dim) for leg in made.legs] == [("meaning", "dense", 8)]


def test_a_space_that_is_named_twice_is_refused(tmp_path: Path) -> None:
    twice = "".join(f'[spaces.{name}]\ndocument_tower = "{EXPORTS}/document"\n' for name in ("one", "other"))
    with pytest.raises(WrongUse, match=r"\[spaces.one\] and \[spaces.other\] are one space, tw-\w+: every hit would"):
        collection_of(config(tmp_path, twice))
