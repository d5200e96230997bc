"""The demo's stream runs to its end by itself, leaves no process behind, and says what it lacks."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bartizan_connector.base.errors import Retry, WrongUse
from bartizan_connector.config import Config
from bartizan_connector.documents.documents import Documents
from bartizan_connector.store.embedded.store import EmbeddedStore
from bartizan_training.demo import stream
from bartizan_training.demo.layout import Layout
from bartizan_training.demo.live import percentiles
from bartizan_training.demo.servers import kafka
from tests.exports import export_folder
from tests.servers.kafka import JARS


def test_without_java_it_says_so_before_anything_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(WrongUse, match="needs java, which is not installed here: install a Java runtime"):
        kafka.class_path(tmp_path / "jars")
    assert not (tmp_path / "jars").exists()


def test_without_maven_it_says_so_where_the_jars_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\n")
    java.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(WrongUse, match="needs mvn, which is not installed here: install Maven"):
        kafka.class_path(tmp_path / "jars")
    (tmp_path / "jars").mkdir()
    (tmp_path / "jars" / ".pom").write_bytes(kafka.POM.read_bytes())
    (tmp_path / "jars" / "a.jar").touch()
    assert kafka.class_path(tmp_path / "jars") == str(tmp_path / "jars" / "a.jar")


def test_a_store_that_does_not_answer_holds_nothing_for_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "bartizan.toml"
    config.write_text(
        f'[collection]\nname = "docs"\n[spaces.dense]\ndocument_tower = "{export_folder("bert", "int8")}"\n'
        f'[backend]\nuri = "{tmp_path / "index"}"\n'
    )
    settings = Config.load(config)
    with Documents(settings) as documents:
        documents.put([{"_id": "a", "text": "Edit 1. oak"}])
    is_away = False

    def unless_away(call: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **how: Any) -> Any:
            if is_away:
                raise Retry("away")
            return call(*args, **how)

        return called

    for name in ("search", "scan"):
        monkeypatch.setattr(EmbeddedStore, name, unless_away(getattr(EmbeddedStore, name)))
    with stream._searching(config) as texts:
        for is_away in (False, True, False):
            assert texts() == ({} if is_away else {"a": "Edit 1. oak"})
            assert set(stream._stored(config)) == (set() if is_away else {"a"})


def test_percentiles_of_few() -> None:
    assert percentiles([]) == (0.0, 0.0)
    assert percentiles([2.0]) == (2.0, 2.0)
    assert percentiles([float(n) for n in range(101)]) == (50.0, 99.0)


@pytest.mark.server
def test_it_ends_by_itself_with_every_edit_found(tmp_path: Path) -> None:
    demo = Layout(tmp_path / "demo")
    demo.document.parent.mkdir(parents=True)
    demo.document.symlink_to(export_folder("bert", "int8"))
    demo.query.symlink_to(export_folder("bert", "int8"))
    command = [sys.executable, "-m", "bartizan_connector", "demo-stream", "--out", str(tmp_path / "out")]
    command += ["--demo", str(demo.root), "--jars", str(JARS), "--edits", "20", "--rate", "10"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=240, env=os.environ | {"COLUMNS": "120"})
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "are stored as they were last edited" in ran.stdout
    left = [
        words.replace(b"\0", b" ")
        for each in Path("/proc").glob("[0-9]*/cmdline")
        if str(tmp_path).encode() in (words := _words(each))
    ]
    assert left == []


def _words(cmdline: Path) -> bytes:
    try:
        return cmdline.read_bytes()
    except OSError:  # it has just ended
        return b""
