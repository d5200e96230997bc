"""How many threads a run trains with: chosen by the idle cores, said, noted, and the same when it goes on."""

import os
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from bartizan_training import threads
from bartizan_training.loop import train
from bartizan_training.recipe import Recipe
from bartizan_training.threads import settle
from tests.training import toy
from tests.training.toy import CONTRASTIVE, with_keys


@pytest.fixture(autouse=True)
def _nobody_has_set_any(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "_BY_DEFAULT", torch.get_num_threads())
    monkeypatch.setattr(threads, "available_cores", lambda: 4)


def idle(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(threads, "idle_cores", lambda: count)


def test_as_many_threads_as_idle_cores_and_a_resumed_run_keeps_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    idle(monkeypatch, 3)
    settle(Accelerator(), tmp_path / "threads")
    assert torch.get_num_threads() == 3
    assert capsys.readouterr().err == "training with 3 threads, of 4 cores (--threads chooses another number)\n"
    torch.set_num_threads(1)
    monkeypatch.setattr(threads, "_BY_DEFAULT", 1)
    idle(monkeypatch, 4)
    settle(Accelerator(), tmp_path / "threads")
    assert torch.get_num_threads() == 3, "other threads would give other bits"


def test_what_is_asked_goes_before_what_was_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    idle(monkeypatch, 1)
    settle(Accelerator(), tmp_path / "threads")
    settle(Accelerator(), tmp_path / "threads", asked=2)
    assert (torch.get_num_threads(), (tmp_path / "threads").read_text()) == (2, "2\n")


def test_what_the_caller_or_the_environment_has_set_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    idle(monkeypatch, 4)
    torch.set_num_threads(2)
    settle(Accelerator(), tmp_path / "by-the-caller")
    assert torch.get_num_threads() == 2
    monkeypatch.setattr(threads, "_BY_DEFAULT", 2)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    settle(Accelerator(), tmp_path / "by-the-environment")
    assert torch.get_num_threads() == 2


def test_a_run_notes_its_threads_and_one_that_is_refused_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    idle(monkeypatch, 2)
    bench = toy.bench(tmp_path)
    short = with_keys(CONTRASTIVE, steps=1, batch_size=4)
    train(Recipe.load(toy.recipe(bench, short)), bench / "run", threads=1)
    assert (bench / "run/threads").read_text() == "1\n"
    broken = with_keys(short, learning_rate=1e30, steps=3)
    with pytest.raises(Exception, match="the loss is"):
        train(Recipe.load(toy.recipe(bench, broken)), bench / "other", threads=1)
    assert not (bench / "other/recipe.toml").exists()
    assert not (bench / "other/threads").exists()


def test_the_program_lets_threads_that_wait_sleep() -> None:
    from bartizan_connector.commands.program import PATIENT, run

    os.environ.pop(PATIENT[0], None)
    assert run(["--version"]) == 0
    assert os.environ[PATIENT[0]] == "PASSIVE"
