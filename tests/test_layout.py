"""The shape of the project: public names, a light import, arrows, house limits; true in a bare checkout."""

import ast
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

import bartizan_connector

ROOT = Path(__file__).parent.parent
PACKAGES = (
    "connector/bartizan_connector",
    "encoders/bartizan_encoders",
    "training/bartizan_training",
    "triton_models/bartizan_triton",
)
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
HEAVY = ("torch", "transformers", "accelerate", "faiss", "pandas", "pymilvus", "onnxruntime", "pydantic", "numpy")


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_every_public_name_is_sorted_and_can_be_loaded() -> None:
    names = bartizan_connector.__all__
    assert names == sorted(names)
    assert len(names) <= 15
    for name in names:
        assert getattr(bartizan_connector, name).__name__ == name


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="frobnicate"):
        bartizan_connector.frobnicate  # noqa: B018


def test_importing_the_connector_is_light() -> None:
    probe = (
        "import sys, time; begun = time.process_time(); import bartizan_connector;"
        "print(time.process_time() - begun, *sys.modules)"
    )
    printed = subprocess.run(
        [sys.executable, "-c", probe], cwd=ROOT / "connector", check=True, capture_output=True, text=True
    ).stdout.split()
    seconds, modules = float(printed[0]), set(printed[1:])
    assert seconds < 0.3
    assert not modules & set(HEAVY)


def test_searching_pulls_in_no_training_framework_and_no_pandas_of_ours() -> None:
    probe = "import sys, bartizan_connector.search.retriever, bartizan_connector.stream.work; print(*sys.modules)"
    printed = subprocess.run(
        [sys.executable, "-c", probe], cwd=ROOT / "connector", check=True, capture_output=True, text=True
    ).stdout.split()
    assert not set(printed) & {"torch", "transformers", "accelerate", "faiss", "pandas"}


@pytest.mark.packaging
@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_each_file_says_in_its_first_line_what_it_is_for_and_stays_small(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docstring = ast.get_docstring(tree)
    assert docstring, "a module opens with one sentence that says what it is for"
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400
    assert path.stem not in {"utils", "helpers", "manager", "common", "misc"}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < 60, f"{node.name} is longer than 60 lines"


def test_tests_are_skipped_in_one_place_which_does_not_skip_in_ci() -> None:
    files = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in ROOT.glob("tests/**/*.py")}
    skipping = "pytest.skip" + "("
    assert [name for name, text in files.items() if skipping in text] == ["tests/needs.py"]


def test_no_file_of_the_tests_is_long() -> None:
    lengths = {named(path): len(path.read_text(encoding="utf-8").splitlines()) for path in ROOT.glob("tests/**/*.py")}
    assert {name: length for name, length in lengths.items() if length > 400} == {}


def test_the_median_file_is_short() -> None:
    assert statistics.median(len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES) <= 150
