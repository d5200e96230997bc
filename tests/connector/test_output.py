"""Stdout that cannot be written, and Ctrl-C at any moment, end the program as what they are."""

import os
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import pytest

from bartizan_connector.__main__ import main
from bartizan_connector.base.errors import Interrupted, interruptible
from bartizan_connector.doctor import installation

PROGRAM = [sys.executable, "-m", "bartizan_connector"]


def started(*words: str, stdout: int) -> "subprocess.Popen[str]":
    return subprocess.Popen([*PROGRAM, *words], stdout=stdout, stderr=subprocess.PIPE, text=True)


@pytest.mark.packaging
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
@pytest.mark.parametrize("words", [["doctor", "--json"], ["--version"], ["doctor"], ["--help"]], ids=" ".join)
def test_an_output_that_is_full_is_told_and_is_no_fault_of_ours(words: list[str]) -> None:
    with open("/dev/full", "w") as full:
        process = started(*words, stdout=full.fileno())
    told = process.communicate(timeout=60)[1]
    assert (process.returncode, told) == (1, "error: the output cannot be written: No space left on device\n")


@pytest.mark.packaging
@pytest.mark.parametrize("words", [["doctor"], ["train", "--help"]], ids=" ".join)
def test_a_reader_that_has_enough_ends_the_program_quietly(words: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    process = started(*words, stdout=writer)
    os.close(writer)
    assert process.communicate(timeout=60)[1].count("Error") == 0
    assert process.returncode == 141


@pytest.mark.packaging
def test_stderr_that_cannot_be_written_costs_nothing(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [*PROGRAM, "search", "x", "--config", str(tmp_path / "none")], stderr=full, timeout=60, check=False
        )
    assert ended.returncode == 2


@cache
def _usual_seconds() -> float:
    """What the program takes; the first time it may read its files from disk."""
    for _ in range(2):
        begun = time.monotonic()
        started("doctor", stdout=subprocess.DEVNULL).communicate(timeout=60)
    return time.monotonic() - begun


@pytest.mark.packaging
@pytest.mark.parametrize("share", [0.05, 0.1, 0.2, 0.4])
def test_ctrl_c_while_the_program_begins_is_one_line(share: float) -> None:
    seconds = share * _usual_seconds()
    process = started("doctor", stdout=subprocess.DEVNULL)
    time.sleep(seconds)
    if process.poll() is not None:
        process.communicate()
        return  # it was quicker than those that were measured
    process.send_signal(signal.SIGINT)
    told = process.communicate(timeout=60)[1]
    if "Traceback" in told and "bartizan_connector/__main__.py" not in told:
        return  # it came before the interpreter had begun with the program: nothing of ours can answer
    assert "Traceback" not in told
    assert process.returncode in (130, -signal.SIGINT)
    lines = [line for line in told.splitlines() if "no configuration was checked" not in line]  # said before it came
    assert len(lines) <= 1
    assert all(line.startswith("interrupted") for line in lines)


def test_ctrl_c_says_how_to_go_on(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken_off() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(installation, "examine", broken_off)
    with pytest.raises(SystemExit) as ended:
        main(["doctor"])
    assert ended.value.code == 130
    assert capsys.readouterr().err == "interrupted; what was finished before stays as it is\n"
    with pytest.raises(Interrupted, match="interrupted; run it again"), interruptible("run it again"):
        broken_off()


def test_quiet_leaves_errors_and_verbose_says_more(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    def told(*words: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            main(words)
        return int(ended.value.code or 0), capsys.readouterr().err

    os.chdir(tmp_path)
    assert "no configuration was checked" in told("doctor")[1]
    assert told("doctor", "--quiet")[1] == ""
    assert told("search", "x", "-q") == (
        2,
        "error: cannot read the configuration bartizan.toml: No such file or directory\n",
    )
    assert told("doctor", "-q", "-v")[0] == 2
