"""What is opened by its path takes a text and a Path, and says of anything else what was expected."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bartizan_connector import Config, OnnxEncoder, Retriever, TowerSpec
from bartizan_connector.base.errors import WrongUse
from bartizan_connector.encode.export import Export
from bartizan_connector.encode.settings import OnnxSettings
from bartizan_connector.stream.jsonl import JsonlSource
from bartizan_encoders.local import TorchEncoder
from bartizan_encoders.tower import Tower
from bartizan_training.data.collections import BeirData
from bartizan_training.recipe import Recipe
from bartizan_triton.export import export_tower
from tests.exports import export_folder, tower_folder

OPENERS: dict[str, Callable[[Any], object]] = {
    "Config.load": Config.load,
    "Retriever.open": Retriever.open,
    "OnnxEncoder.open": OnnxEncoder.open,
    "OnnxSettings().open": OnnxSettings().open,
    "TorchEncoder.open": TorchEncoder.open,
    "Tower.load": Tower.load,
    "TowerSpec.read": TowerSpec.read,
    "Export.read": Export.read,
    "JsonlSource": JsonlSource,
    "BeirData.read": BeirData.read,
    "Recipe.load": Recipe.load,
    "export_tower": lambda path: export_tower(path, Path("nowhere")),
}


@pytest.mark.parametrize("name", OPENERS)
@pytest.mark.parametrize("given", [{}, None, 3, b"bytes", ["a"]], ids=repr)
def test_what_is_no_path_is_refused_by_name(name: str, given: object) -> None:
    with pytest.raises(WrongUse, match=r"must be a path.* came"):
        OPENERS[name](given)


@pytest.mark.parametrize("name", OPENERS)
def test_a_text_is_a_path(name: str, tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match="nowhere"):
        OPENERS[name](str(tmp_path / "nowhere"))


def test_a_text_opens_what_a_path_opens() -> None:
    export, tower = export_folder("bert", "fp32"), tower_folder("bert")
    assert OnnxEncoder.open(str(export)).spec == OnnxEncoder.open(export).spec == TowerSpec.read(str(export))
    assert TorchEncoder.open(str(tower)).spec == Tower.load(str(tower)).spec
