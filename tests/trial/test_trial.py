"""No wrong use is accepted silently, ends with a wrong exit code, shows a raw exception or is called our own fault."""

from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch
from typer.main import get_command

from bartizan_connector.commands.program import build
from tests.trial.trial import USES, answer, hub_away
from tests.trial.uses import Use
from tests.trial.world import digest, make

pytestmark = pytest.mark.packaging


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MappingProxyType[str, Path]]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with hub_away():
        made = make(tmp_path_factory.mktemp("trial") / "world")
        before = digest(made)
        yield made
        assert digest(made) == before, "a use changed what it named"
    torch.set_num_threads(threads)


@pytest.mark.parametrize("use", USES, ids=lambda use: f"{use.area}: {use.name[:60]!r}")
def test_a_wrong_use_is_told(use: Use, places: MappingProxyType[str, Path], tmp_path: Path) -> None:
    came = answer(use, places, tmp_path / "home")
    assert not came.faults(use), came


def options(command: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Every option of every command."""
    for name, inner in getattr(command, "commands", {}).items():
        yield from options(inner, f"{path} {name}".strip())
    if not hasattr(command, "commands"):
        yield from ((path, word) for each in command.params for word in each.opts if word.startswith("--"))


def test_the_trial_covers_every_option_of_every_command() -> None:
    missing = [
        f"{path} {option}"
        for path, option in options(get_command(build()))
        if not any(use.words.startswith(path) and option in use.words.replace("=", " ").split() for use in USES)
    ]
    assert missing == []
    assert len(USES) >= 200
