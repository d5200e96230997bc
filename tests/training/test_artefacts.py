"""Artefacts: whole or not there, found again under what they were made from, and never mixed."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator

from bartizan_encoders.tower import Tower
from bartizan_training import step
from bartizan_training.artefacts import Artefacts
from bartizan_training.frozen import Frozen, freeze
from tests.training import toy


def test_the_same_origin_is_the_same_artefact_and_another_one_lies_beside_it(tmp_path: Path) -> None:
    artefacts = Artefacts(tmp_path)
    one, other = (artefacts.of("mine", "negatives", {"depth": depth}) for depth in (5, 6))
    for artefact in (one, other):
        assert not artefact.exists
        with artefact.written() as folder:
            (folder / "content").write_text(artefact.key)
    assert artefacts.of("mine", "negatives", {"depth": 5}).folder == one.folder != other.folder
    assert {path.read_text() for path in tmp_path.glob("mine-negatives/*/content")} == {one.key, other.key}
    assert json.loads((one.folder / "made_from.json").read_text()) == {"depth": 5}


@pytest.mark.parametrize("together", [False, True])
def test_an_artefact_that_was_not_finished_is_not_there(tmp_path: Path, together: bool) -> None:
    artefact = Artefacts(tmp_path).of("mine", "negatives", {})

    def break_off() -> None:
        with artefact.written_by_all(Accelerator()) if together else artefact.written() as folder:
            (folder / "content").write_text("half")
            raise OSError("the disk is gone")

    with pytest.raises(Exception, match="the disk is gone"):
        break_off()
    assert not artefact.exists
    with artefact.written_by_all(Accelerator()) as folder:
        assert list(folder.iterdir()) == []
    assert artefact.exists


def test_vectors_of_several_towers_roles_and_texts_lie_side_by_side(tmp_path: Path) -> None:
    towers = [Tower.load(toy.tower(tmp_path / f"tower-{seed}", seed=seed)) for seed in (0, 1)]
    wanted = [
        Frozen(tower=tower, role=role, texts=texts, raw=raw)
        for tower in towers
        for role in ("query", "document")
        for texts in (("ask1", "thing2 ask3"), ("ask2",))
        for raw in (False, True)
    ]
    place = toy.toy_place(tmp_path)
    first = [torch.from_numpy(freeze(frozen, place).values.copy()) for frozen in wanted]
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.glob("scratch/artefacts/*-vectors/*/vectors.npy")}
    again = [torch.from_numpy(freeze(frozen, place).values.copy()) for frozen in reversed(wanted)]
    assert len(stamps) == len(wanted)
    assert stamps == {path: path.stat().st_mtime_ns for path in stamps}
    assert all(torch.equal(a, b) for a, b in zip(first, reversed(again), strict=True))
    for frozen, vectors in zip(wanted, first, strict=True):
        run = frozen.tower.raw if frozen.raw else frozen.tower
        for text, vector in zip(frozen.texts, vectors, strict=True):
            (tokens,) = frozen.tower.tokens.encode([text], frozen.role)
            ids = torch.tensor([tokens.ids])
            with torch.no_grad():
                assert torch.allclose(run(ids, torch.ones_like(ids))[0], vector, atol=1e-6)


@pytest.mark.parametrize(("gib", "expected"), [(2, 4096), (24, 24576), (80, 65536), (139, 65536)])
def test_a_piece_is_as_large_as_suits_the_device(monkeypatch: pytest.MonkeyPatch, gib: int, expected: int) -> None:
    assert step.suited(torch.device("cpu")).tokens == 384
    memory = SimpleNamespace(total_memory=gib * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: memory)
    assert step.suited(torch.device("cuda")).tokens == expected
