"""The documentation says what the code does."""

import ast
import re
import textwrap
from pathlib import Path
from types import UnionType
from typing import Union, get_args, get_origin

import pytest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from bartizan_connector.config import Config
from tests.test_layout import PACKAGES, ROOT

PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md")])


def tables() -> dict[str, type[BaseModel]]:
    found = {}
    for name, field in Config.model_fields.items():
        kinds = (
            get_args(field.annotation) if get_origin(field.annotation) in (Union, UnionType) else (field.annotation,)
        )
        (found[name],) = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
    return found


def default_of(model: type[BaseModel], key: str) -> str:
    default = model.model_fields[key].default
    if default is PydanticUndefined:
        return "required"
    if default is None or default == ():
        return "none"
    return f'`"{default}"`' if isinstance(default, str) else f"`{default}`"


def test_the_configuration_page_lists_every_key_with_its_default() -> None:
    page = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
    shown: dict[str, dict[str, str]] = {}
    table = ""
    for key, default in re.findall(r"^\| `([^`]+)` \|([^|]*)\|", page, flags=re.MULTILINE):
        if key.startswith("["):
            table = key.strip("[]")
            shown[table] = {}
        else:
            shown[table][key] = default.strip()
    exceptions = {("space", "query_tower"): "the document tower"}
    expected = {
        name: {key: exceptions.get((name, key), default_of(model, key)) for key in model.model_fields}
        for name, model in tables().items()
    }
    assert shown == expected


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_in_the_documentation_compiles(page: Path) -> None:
    for snippet in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL):
        compile(snippet, str(page), "exec")


def rooms() -> str:
    """The rooms as the README shows them: each package and folder with the first sentence of its docstring."""
    lines = []
    for package in PACKAGES:
        root = ROOT / package
        for path in sorted(root.rglob("__init__.py"), key=lambda path: (len(path.relative_to(root).parts) > 1, path)):
            says = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            sentence = re.split(r"\.\s|\.$", says.split("\n\n")[0].replace("\n", " "), maxsplit=1)[0]
            name = f"{package}/" if path.parent == root else f"  {path.parent.relative_to(root).as_posix()}/"
            lines.append(f"{name:<34} {textwrap.shorten(sentence, 100, placeholder=' …')}")
    return "\n".join(lines)


def test_the_readme_shows_the_rooms_as_they_are() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = readme.split("## Where to begin to read")[1].split("```")[1].strip("\n")
    assert shown == rooms(), f"put this into the README:\n{rooms()}"


def test_the_walks_of_the_readme_visit_files_that_exist_and_no_room_twice() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8").split("## Where to begin to read")[1].split("```")[0]
    walks = [re.findall(r"^\d+\. `([\w/]+\.py)`", part, flags=re.MULTILINE) for part in readme.split("\nOne ")[1:]]
    assert len(walks) == 2
    for walk in walks:
        assert 4 <= len(walk) < 10
        assert len({name.split("/")[0] for name in walk}) == len(walk)
        for name in walk:
            assert (ROOT / "connector/bartizan_connector" / name).is_file(), name


def test_every_test_that_the_error_page_names_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs/errors.md").read_text(encoding="utf-8")))
    sources = [
        file.read_text(encoding="utf-8") for part in ("tests", "connector") for file in (ROOT / part).rglob("*.py")
    ]
    defined = set(re.findall(r"def (test_\w+)\(", "\n".join(sources)))
    assert len(named) > 20
    assert named <= defined
