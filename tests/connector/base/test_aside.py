"""Folders written aside: all or nothing, and nobody else's folder is ever replaced."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bartizan_connector.base.aside import folder_aside, sweep
from bartizan_connector.base.errors import Stop, WrongUse


def _write(target: Path, content: str) -> None:
    with folder_aside(target, marker="mark") as fresh:
        (fresh / "mark").write_text(content)


def test_a_folder_appears_whole_and_replaces_the_one_before(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "target"
    _write(target, "one")
    (target / "extra").touch()
    _write(target, "two")
    assert {path.name: path.read_text() for path in target.iterdir()} == {"mark": "two"}
    assert [path.name for path in target.parent.iterdir()] == ["target"]


def test_nothing_is_visible_before_the_end_and_nothing_is_left_of_a_failure(tmp_path: Path) -> None:
    target = tmp_path / "target"
    _write(target, "one")

    def interrupted() -> None:
        with folder_aside(target, marker="mark") as fresh:
            (fresh / "mark").write_text("two")
            assert (target / "mark").read_text() == "one"
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        interrupted()
    assert (target / "mark").read_text() == "one"
    assert os.listdir(tmp_path) == ["target"]


def test_a_folder_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(WrongUse, match="not empty and holds no mark"):
        _write(tmp_path, "one")
    with pytest.raises(WrongUse, match="is a file"):
        _write(tmp_path / "thesis.txt", "one")
    assert os.listdir(tmp_path) == ["thesis.txt"]


def test_an_empty_folder_is_taken_and_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    _write(tmp_path / "link", "one")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "mark").read_text() == "one"


def test_others_may_read_what_was_written(tmp_path: Path) -> None:
    _write(tmp_path / "target", "one")
    (tmp_path / "plain").mkdir()
    assert (tmp_path / "target").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_full_disk_is_named_and_leaves_the_old_folder(tmp_path: Path) -> None:
    target = tmp_path / "target"
    _write(target, "one")
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with (
        pytest.raises(Stop, match=r"no space left for .*target; nothing was changed"),
        folder_aside(target, marker="mark"),
    ):
        raise full
    assert (target / "mark").read_text() == "one"
    assert os.listdir(tmp_path) == ["target"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Stop, match="cannot write"):
        _write(tmp_path / "file" / "target", "one")


KILLED = """
import os, signal, sys
from pathlib import Path
from bartizan_connector.base import aside
target = Path(sys.argv[1])
if sys.argv[2] == "between":
    aside._exchange = lambda: None
    rename, calls = Path.rename, []
    def once(self, to):
        calls.append(rename(self, to))
        os.kill(os.getpid(), signal.SIGKILL)
    Path.rename = once
with aside.folder_aside(target, marker="mark") as fresh:
    (fresh / "mark").write_text("killed")
    if sys.argv[2] == "writing":
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("when", ["writing", "between"])
def test_what_a_kill_left_is_swept_and_what_stood_there_goes_back(tmp_path: Path, when: str) -> None:
    target = tmp_path / "target"
    _write(target, "one")
    assert subprocess.run([sys.executable, "-c", KILLED, str(target), when]).returncode == -signal.SIGKILL
    assert len(os.listdir(tmp_path)) == (2 if when == "writing" else 1)
    sweep(target)
    assert os.listdir(tmp_path) == ["target"]
    assert (target / "mark").read_text() == "one"
    _write(target, "two")
    assert (target / "mark").read_text() == "two"
    assert os.listdir(tmp_path) == ["target"]


def test_what_another_still_writes_is_not_swept(tmp_path: Path) -> None:
    (tmp_path / ".target.mine").mkdir()
    (tmp_path / ".target.mine" / "notes").touch()
    with folder_aside(tmp_path / "target", marker="mark") as fresh:
        (fresh / "mark").write_text("first")
        _write(tmp_path / "target", "second")
        assert (fresh / "mark").exists()
    assert (tmp_path / "target" / "mark").read_text() == "first"
    assert sorted(os.listdir(tmp_path)) == [".target.mine", "target"]
