"""The documentation says what the code does."""

import ast
import json
import re
import shutil
import textwrap
from importlib.metadata import entry_points
from pathlib import Path
from types import UnionType
from typing import Union, get_args, get_origin

import pytest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from bartizan_connector.__main__ import main
from bartizan_connector.config import Config
from bartizan_connector.config.kafka import KafkaSettings
from bartizan_connector.config.settings import JsonlSettings, SpaceSettings
from bartizan_connector.config.template import template
from bartizan_connector.store.profiles import Profile
from tests.exports import export_folder, tower_folder
from tests.test_layout import PACKAGES, ROOT

PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md")])


def tables() -> dict[str, type[BaseModel]]:
    """Each table of the file; where people give names, and where an engine decides what is in it, by those."""
    found: dict[str, type[BaseModel]] = {}
    for name, field in Config.model_fields.items():
        if name == "spaces":
            found["spaces.LEG"] = SpaceSettings
        elif name == "encoders":
            for point in sorted(entry_points(group="bartizan.encoders"), key=lambda point: point.name != "onnx"):
                engine = "" if point.name == "onnx" else f' engine = "{point.name}"'
                found[f"encoders.NAME{engine}"] = point.load()
        elif name == "source":
            found |= {"source": JsonlSettings, 'source kind = "kafka"': KafkaSettings}
        else:
            (found[name],) = _tables_in(field.annotation)
    return found


def _tables_in(annotation: object) -> list[type[BaseModel]]:
    parts = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    return [part for part in parts if isinstance(part, type) and issubclass(part, BaseModel)]


def default_of(model: type[BaseModel], key: str) -> str:
    field = model.model_fields[key]
    if field.default_factory is not None or field.default is None or field.default == ():
        return "none"
    if field.default is PydanticUndefined:
        return "required"
    is_a_word = isinstance(field.default, str | Profile)
    return f'`"{field.default}"`' if is_a_word else f"`{field.default}`"


def test_the_configuration_page_lists_every_key_with_its_default() -> None:
    page = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
    shown: dict[str, dict[str, str]] = {}
    table = ""
    for key, default in re.findall(r"^\| `([^`]+)` \|([^|]*)\|", page, flags=re.MULTILINE):
        if key.startswith("["):
            table = key.replace("[", "").replace("]", "")
            shown[table] = {}
        else:
            shown[table][key] = default.strip()
    exceptions = {("spaces.LEG", "query_tower"): "the document tower"}
    expected = {
        name: {key: exceptions.get((name, key), default_of(model, key)) for key in model.model_fields}
        for name, model in tables().items()
    }
    assert shown == expected


def test_the_configuration_page_shows_what_init_writes(tmp_path: Path) -> None:
    shown = re.findall(
        r"```toml\n(.*?)```", (ROOT / "docs/configuration.md").read_text(encoding="utf-8"), flags=re.DOTALL
    )
    shutil.copytree(export_folder("bert", "fp32"), tmp_path / "exports/document")
    written = template(
        [tmp_path / "exports/document"], tmp_path, name="docs", uri="index.bartizan", source="corpus.jsonl"
    )
    written = re.sub(r"dense, \d+ dim", "dense, 384 dim", re.sub(r"tw-\w{32}", "tw-…", written))
    assert written.replace('query_tower = "exports/document"', 'query_tower = "exports/query"') in [
        re.sub(r"tw-\w{32}", "tw-…", block) for block in shown
    ]


def test_from_nothing_to_a_search_in_six_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The README's own lines, with a tower of the tests in the place of MiniLM: as it was trained, and exported."""
    (block,) = (
        block
        for block in re.findall(
            r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL
        )
        if "Documents" in block
    )
    assert len([line for line in block.splitlines() if line]) == 6 - 1, "and an empty one between"
    for tower in (tower_folder("bert"), export_folder("bert", "fp32")):
        folder = tmp_path / tower.name
        folder.mkdir()
        (folder / "minilm").symlink_to(tower)
        monkeypatch.chdir(folder)
        exec(compile(block, "README.md", "exec"), {"__name__": "__main__"})
        assert capsys.readouterr().out.split()[0] in ("a", "b")


def test_the_python_of_the_documents_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (block,) = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs/documents.md").read_text(encoding="utf-8"), flags=re.DOTALL
    )
    (tmp_path / "minilm").symlink_to(export_folder("bert", "fp32"))
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "docs/documents.md", "exec"), {"__name__": "__main__"})
    said = capsys.readouterr().out
    assert "2 written" in said
    assert (
        "document 2 is refused: field 'year' is missing" in said or "document 2 is refused: 'text' is missing" in said
    )
    assert "'b'" not in said.splitlines()[-1]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_in_the_documentation_compiles(page: Path) -> None:
    for snippet in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL):
        compile(snippet, str(page), "exec")


@pytest.mark.parametrize("page", ["configuration", "search"])
def test_configurations_in_the_documentation_are_read(page: str, tmp_path: Path) -> None:
    text = (ROOT / f"docs/{page}.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```toml\n(.*?)```", text, flags=re.DOTALL)
    assert blocks
    for block in blocks:
        (tmp_path / "bartizan.toml").write_text(block, encoding="utf-8")
        assert Config.load(tmp_path / "bartizan.toml", {}).spaces


def test_the_python_of_the_search_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a small project in the place of the demo's."""
    project = tmp_path / "bartizan-demo"
    project.mkdir()
    fields = '[{ name = "module", type = "string" }, { name = "kind", type = "string" }]'
    (project / "bartizan.toml").write_text(
        f'collection = {{ name = "docs", fields = {fields} }}\n'
        f'spaces.dense = {{ document_tower = "{export_folder("bert", "fp32")}" }}\n'
        'backend = { uri = "index.db", lexical = "words" }\nsource = { path = "corpus.jsonl" }\n',
        encoding="utf-8",
    )
    documents = [("filecmp.cmp", "compare two files", "filecmp"), ("os.path.join", "join a path", "os.path")]
    lines = [
        json.dumps({"_id": id, "title": id, "text": text, "module": module, "kind": "function"})
        for id, text, module in documents
    ]
    (project / "corpus.jsonl").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(SystemExit) as ended:
        main(["ingest", str(project / "bartizan.toml")])
    assert not ended.value.code
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/search.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        capsys.readouterr()
        exec(compile(block, "docs/search.md", "exec"), {"__name__": "__main__"})
        assert "filecmp.cmp" in capsys.readouterr().out


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
