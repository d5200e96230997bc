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


def tree() -> str:
    """The file tree as the README shows it: each module with the first sentence of its docstring."""
    lines = []
    for package in PACKAGES:
        root = ROOT / package
        lines.append(f"{package}/")
        for path in sorted(root.rglob("*.py")):
            says = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            sentence = re.split(r"\.\s|\.$", says.split("\n\n")[0].replace("\n", " "), maxsplit=1)[0]
            meaning = sentence.split(": ", 1)[-1]
            lines.append(f"  {path.relative_to(root)!s:<24} {textwrap.shorten(meaning, 92, placeholder=' …')}")
    return "\n".join(lines)


def test_the_readme_shows_the_file_tree_as_it_is() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = readme.split("## What is where")[1].split("```")[1].strip()
    assert shown == tree(), f"put this into the README:\n{tree()}"


def test_every_test_that_the_error_page_names_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs/errors.md").read_text(encoding="utf-8")))
    sources = [
        file.read_text(encoding="utf-8") for part in ("tests", "connector") for file in (ROOT / part).rglob("*.py")
    ]
    defined = set(re.findall(r"def (test_\w+)\(", "\n".join(sources)))
    assert len(named) > 20
    assert named <= defined
