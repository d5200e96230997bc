"""A shortened tower gives the first components, normalised anew, in a space that its query tower shares."""

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.space.spec import TowerSpec
from bartizan_encoders.commands import tower as command
from bartizan_encoders.shortening import shortened
from bartizan_encoders.tower import Tower
from tests.training import toy, toy_sparse

TEXTS = ("thing1 thing2", "thing3", "ask4 ask5 thing6")


def vectors(tower: Tower) -> torch.Tensor:
    ids = [torch.tensor([text.ids]) for text in tower.tokens.encode(TEXTS, "document")]
    with torch.no_grad():
        return torch.cat([tower(row, torch.ones_like(row)) for row in ids])


@pytest.mark.parametrize("head", [None, 24])
def test_the_vectors_are_the_first_components_of_length_one(tmp_path: Path, head: int | None) -> None:
    whole = Tower.load(toy.tower(tmp_path / "tower", dim=head))
    short = shortened(whole, 8)
    expected = torch.nn.functional.normalize(vectors(whole)[:, :8], dim=-1)
    torch.testing.assert_close(vectors(short), expected, atol=1e-6, rtol=1e-6)
    short.save(tmp_path / "short")
    again = Tower.load(tmp_path / "short")
    torch.testing.assert_close(again.state_dict(), short.state_dict(), atol=0, rtol=0)
    torch.testing.assert_close(vectors(again), vectors(short), atol=1e-6, rtol=1e-6)
    assert again.spec == short.spec
    assert (short.spec.dim, short.spec.head, short.spec.name) == (8, "linear", "toy-8")


def test_towers_of_one_space_are_of_one_space_when_cut_alike_and_of_another_than_before(tmp_path: Path) -> None:
    document = Tower.load(toy.tower(tmp_path / "document"))
    query = Tower.load(toy.tower(tmp_path / "query", seed=1))
    query.spec = query.spec.aligned_to(document.spec)
    spaces = [shortened(tower, dim).spec.space_id for tower, dim in ((document, 8), (query, 8), (document, 4))]
    assert spaces[0] == spaces[1] != spaces[2]
    assert document.spec.space_id not in spaces


def test_what_cannot_be_cut_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match=r"expected fewer than the 32 dimensions of tower 'toy', got 32"):
        shortened(Tower.load(toy.tower(tmp_path / "dense")), 32)
    with pytest.raises(WrongUse, match=r"tower 'toy' is sparse: its terms have no order"):
        shortened(Tower.load(toy_sparse.tower(tmp_path / "sparse")), 8)


def test_the_command_writes_the_shorter_tower_and_no_other_one_over_it(tmp_path: Path) -> None:
    toy.tower(tmp_path / "tower")
    arguments = ["cut", str(tmp_path / "tower"), "--out", str(tmp_path / "short"), "--dim"]
    result = CliRunner().invoke(command, [*arguments, "8"])
    assert result.exit_code == 0, result.output
    assert "dense, 8 dimensions, cosine" in result.output
    assert TowerSpec.read(tmp_path / "short").dim == 8
    with pytest.raises(WrongUse, match=r"holds another tower"):
        CliRunner().invoke(command, [*arguments, "4"], catch_exceptions=False)
