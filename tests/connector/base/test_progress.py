"""How far a long step is: lines at intervals in a log, a bar before a person, nothing where nothing is to be said."""

import time
from io import StringIO

import pytest
from rich.console import Console

from bartizan_connector.base import progress as module
from bartizan_connector.base.console import err
from bartizan_connector.base.progress import progress


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS_BETWEEN_LINES", 0.05)


def test_a_log_gets_lines_with_done_rate_left_and_the_last_note(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("training", 1000, begun=100) as tick:
        for _ in range(20):
            tick(10, "loss 0.5" if _ == 0 else "")
            time.sleep(0.01)
    first, *lines, last = capsys.readouterr().err.splitlines()
    assert (first, last) == ("training …", "training: 300 done")
    assert lines
    count, rate, left, note = lines[0].split(", ")
    assert 100 < int(count.split()[1]) <= 300
    assert count.endswith(" of 1,000 done")
    assert 50 < int(rate.removesuffix(" a second").replace(",", "")) < 1100, "the 100 from before do not count"
    assert left.startswith("about ")
    assert left.endswith(" s left")
    assert note == "loss 0.5"


def test_a_step_whose_single_unit_takes_long_is_not_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("encoding"):
        time.sleep(0.2)
    assert "encoding: 0 done, 0.0 a second" in capsys.readouterr().err


def test_a_step_that_fails_says_no_end(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError), progress("dividing", 3):
        raise ZeroDivisionError
    assert capsys.readouterr().err == "dividing …\n"


def test_a_quiet_one_says_nothing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(err, "quiet", True)
    with progress("training", 10) as tick:
        tick(5, "loss 1")
        time.sleep(0.1)
    assert capsys.readouterr().err == ""


def test_a_person_sees_a_bar_with_the_note(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = StringIO()
    monkeypatch.setattr(module, "err", Console(file=screen, force_terminal=True, width=120))
    with progress("training", 10) as tick:
        tick(5, "loss 0.25")
        tick()
    assert "6/10" in screen.getvalue()
    assert "loss 0.25" in screen.getvalue()


@pytest.mark.parametrize(("seconds", "told"), [(0.4, "0 s"), (59, "59 s"), (61, "1 min 1 s"), (7300, "2 h 1 min")])
def test_times_are_told_as_people_do(seconds: float, told: str) -> None:
    assert module._time(seconds) == told
