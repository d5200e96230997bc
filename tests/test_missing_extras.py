"""Every command without one of the packages it needs: the line that installs it, exit code 2, and never a traceback."""

import json
import re
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest

from tests.exports import export_folder, tower_folder
from tests.judged import write_collection

PACKAGES = ("bartizan_connector", "bartizan_encoders", "bartizan_training", "bartizan_triton")
TORCH = ("torch", "transformers", "tokenizers", "safetensors")
SERVING = ("onnxruntime", "tokenizers", "pymilvus", "milvus_lite", "tantivy")
NEEDS = {
    "tower import": TORCH,
    "train": (*TORCH, "accelerate"),
    "export": (*TORCH, "onnx", "onnxruntime"),
    "eval": (*TORCH, "onnx", "onnxruntime", "ir_measures"),
    "eval export": ("onnxruntime", "tokenizers", "ir_measures"),
    "ingest": SERVING,
    "search": SERVING,
    "doctor": SERVING,
    "export triton": ("tritonclient",),
    "repo list": ("tritonclient",),
    "deploy": ("tritonclient", "onnxruntime"),
    "doctor server": ("tritonclient",),
    "demo-stream": dict.fromkeys((*TORCH, "onnxruntime", "faiss", "kafka")),
    "demo": dict.fromkeys((*TORCH, "accelerate", "onnx", "ir_measures", "onnxruntime", "faiss")),
}


class Hiding:
    """A finder of modules that does not find one package."""

    def __init__(self, finder: Any, hidden: str) -> None:
        self._finder, self._hidden = finder, hidden

    def find_spec(self, name: str, *place: Any) -> ModuleSpec | None:
        if name.partition(".")[0] == self._hidden:
            return None
        found: ModuleSpec | None = self._finder.find_spec(name, *place)
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._finder, name)


def begun(command: Any, **_: Any) -> None:
    """In place of `subprocess.run`: the demo must not get as far as its first step."""
    raise AssertionError(f"{command} was begun")


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Takes a package away, and makes Bartizan's own modules import anew; everything is put back afterwards."""
    before = dict(sys.modules)

    def hide(hidden: str) -> None:
        monkeypatch.setattr("subprocess.run", begun)
        for name in list(sys.modules):
            if name.partition(".")[0] in (*PACKAGES, hidden):
                del sys.modules[name]
        monkeypatch.setattr(sys, "meta_path", [Hiding(finder, hidden) for finder in sys.meta_path])

    yield hide
    sys.modules.clear()
    sys.modules.update(before)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that the commands are pointed at."""
    folder = tmp_path_factory.mktemp("place")
    write_collection(folder / "data", {"d": "the tower"}, {"q": "tower"}, train={"q": {"d": 1}}, test={"q": {"d": 1}})
    (folder / "docs.jsonl").write_text(json.dumps({"_id": "d", "text": "the tower"}), encoding="utf-8")
    (folder / "bartizan.toml").write_text(
        f"""
        collection = {{ name = "docs" }}
        spaces.dense = {{ document_tower = "{export_folder("bert", "fp32")}" }}
        encoders = {{ document = {{ threads = 1 }}, query = {{ threads = 1 }} }}
        backend = {{ uri = "index.db", lexical = "words" }}
        source = {{ path = "docs.jsonl" }}
        """,
        encoding="utf-8",
    )
    return folder


def words(command: str, place: Path) -> list[str]:
    tower, export, config = tower_folder("bert"), export_folder("bert", "fp32"), place / "bartizan.toml"
    said = {
        "tower import": ("tower", "import", place / "data", "--out", place / "tower"),
        "tower show": ("tower", "show", tower),
        "train": ("train", "scalingnote", "--tower", tower, "--data", place / "data", "--out", place / "run"),
        "export": ("export", tower, "--out", place / "export"),
        "eval": ("eval", place / "data", "--tower", tower),
        "eval export": ("eval", place / "data", "--tower", export),
        "ingest": ("ingest", config),
        "search": ("search", "tower", "--config", config),
        "doctor": ("doctor", "--config", config),
        "export triton": ("export", tower, "--out", place / "models", "--format", "triton"),
        "repo list": ("repo", "list", place),
        "deploy": ("deploy", place, "--server", "grpc://127.0.0.1:1"),
        "doctor server": ("doctor", "--server", "grpc://127.0.0.1:1"),
        "demo-stream": ("demo-stream", "--out", place / "stream"),
        "demo": ("demo", "--from-scratch", "--out", place / "demo"),
    }
    return [str(word) for word in said[command]]


def run(arguments: list[str]) -> int:
    """As the program does it; an error that is not told ends the test with its traceback."""
    from bartizan_connector.__main__ import main

    try:
        main(arguments)
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


@pytest.mark.packaging  # each imports everything anew
@pytest.mark.parametrize(
    ("command", "hidden"), [(command, name) for command, needed in NEEDS.items() for name in needed]
)
def test_a_missing_package_is_named_with_the_line_that_installs_it(
    place: Path, without: Any, capsys: pytest.CaptureFixture[str], command: str, hidden: str
) -> None:
    before = sorted(place.rglob("*"))
    arguments = words(command, place)
    without(hidden)
    assert run(arguments) == 2
    printed = capsys.readouterr()
    told = " ".join((printed.err + printed.out).split())
    assert f"this needs the package '{hidden.replace('_', '-')}', which is not installed" in told
    assert re.search(r"pip install 'bartizan-search\[(local|milvus|stream|train|triton)\]'", told)
    assert sorted(place.rglob("*")) == before


def test_a_tower_is_shown_without_any_of_them(place: Path, without: Any, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = words("tower show", place)
    for hidden in (*TORCH, "onnx", *SERVING):
        without(hidden)
    assert run(arguments) == 0
    assert "tower_id" in capsys.readouterr().out
