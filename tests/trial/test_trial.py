"""No wrong use is accepted silently, ends with a wrong exit code, shows a raw exception or is called our own fault."""

from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType

import pytest
import torch

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


def test_the_trial_covers_every_command() -> None:
    from bartizan_connector.commands.program import ORDER

    typed = {use.words.split(" ")[0] for use in USES}
    assert set(ORDER) <= typed
    assert len(USES) >= 200
