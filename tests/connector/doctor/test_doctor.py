"""`bartizan doctor` sees what ingest and search would meet, says what to do about it, and keeps secrets."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bartizan_connector.__main__ import main
from bartizan_connector.base.address import without_password
from bartizan_connector.base.errors import Retry, SpaceMismatch, Stop, WrongUse, missing_extra
from bartizan_connector.doctor import configuration, installation
from bartizan_connector.doctor.findings import WAYS_OUT, Finding, problem
from bartizan_connector.space.spec import TowerSpec
from bartizan_connector.store.milvus.connection import Connection
from bartizan_connector.store.milvus.failures import calling
from bartizan_connector.store.settings import BackendSettings
from tests.exports import export_folder

CONFIG = """
[collection]
name = "docs"
[spaces.dense]
document_tower = "tower"
[encoders.document]
threads = 1
[encoders.query]
[backend]
uri = "memory:"
[source]
path = "corpus.jsonl"
"""


class Project:
    """A folder with a configuration, an export and a corpus; the collection is not there yet."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "bartizan.toml"
        self.file.write_text(CONFIG, encoding="utf-8")
        (folder / "corpus.jsonl").write_text('{"_id": "a", "text": "one"}\n', encoding="utf-8")
        shutil.copytree(export_folder("bert", "fp32"), folder / "tower")

    def replace(self, old: str, new: str) -> None:
        text = self.file.read_text(encoding="utf-8")
        assert old in text
        self.file.write_text(text.replace(old, new), encoding="utf-8")

    def findings(self) -> dict[str, Finding]:
        return {finding.area: finding for finding in configuration.examine(self.file)}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def no_source(project: Project) -> None:
    (project.folder / "corpus.jsonl").unlink()


def empty_source(project: Project) -> None:
    (project.folder / "empty").mkdir()
    project.replace("corpus.jsonl", "empty")


def dead_letters_over_the_source(project: Project) -> None:
    project.replace('path = "corpus.jsonl"', 'path = "corpus.jsonl"\ndead_letters = "corpus.jsonl"')


def no_configuration(project: Project) -> None:
    project.file.unlink()


def no_toml(project: Project) -> None:
    project.replace("[collection]", "[collection")


def two_wrong_keys(project: Project) -> None:
    project.replace("threads = 1", "threads = -1\nbatch_tokens = 0")


def missing_keys(project: Project) -> None:
    project.replace('name = "docs"', "")


def no_tower(project: Project) -> None:
    shutil.rmtree(project.folder / "tower")


def edited_tower(project: Project) -> None:
    path = project.folder / "tower/tower.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"mean"', '"cls"'), encoding="utf-8")


def damaged_spec(project: Project) -> None:
    (project.folder / "tower/tower.json").write_text("{}", encoding="utf-8")


def other_space(project: Project) -> None:
    project.replace("[encoders.document]", 'space_id = "tw-other"\n[encoders.document]')


def unknown_engine(project: Project) -> None:
    project.replace("threads = 1", 'engine = "abacus"')


def damaged_model(project: Project) -> None:
    (project.folder / "tower/model.onnx").write_bytes(b"cut")


def no_tokenizer(project: Project) -> None:
    (project.folder / "tower/tokenizer.json").unlink()


def no_collection(project: Project) -> None:
    """As it is: nothing was ingested."""


def no_file(project: Project) -> None:
    project.replace('uri = "memory:"', 'uri = "nowhere.db"')


def plain_file_for_vectors(project: Project) -> None:
    (project.folder / "plain.db").write_text("x")
    project.replace('uri = "memory:"', 'uri = "plain.db"')


def no_server(project: Project) -> None:
    project.replace('uri = "memory:"', 'uri = "http://root:S3cret@127.0.0.1:9"')


def no_address(project: Project) -> None:
    project.replace('uri = "memory:"', 'uri = "http://root:S3cret@"')


def no_token_file(project: Project) -> None:
    project.replace('uri = "memory:"', 'uri = "http://127.0.0.1:9"\ntoken_file = "nowhere"')


def words_of_another(project: Project) -> None:
    (project.folder / "words").mkdir()
    (project.folder / "words/collection.json").write_text('{"collection": "news"}')
    project.replace('uri = "memory:"', 'uri = "new.bartizan"\nlexical = "words"')


def damaged_words(project: Project) -> None:
    (project.folder / "words").mkdir()
    (project.folder / "words/collection.json").write_text("{")
    project.replace('uri = "memory:"', 'uri = "new.bartizan"\nlexical = "words"')


PROBLEMS: list[tuple[Callable[[Project], None], str, int]] = [
    (no_source, "source", 2),
    (empty_source, "source", 2),
    (dead_letters_over_the_source, "source", 2),
    (no_configuration, "config", 2),
    (no_toml, "config", 2),
    (two_wrong_keys, "config", 2),
    (missing_keys, "config", 2),
    (no_tower, "space", 2),
    (edited_tower, "space", 3),
    (damaged_spec, "space", 1),
    (other_space, "space", 3),
    (unknown_engine, "config", 2),
    (damaged_model, "document tower", 1),
    (no_tokenizer, "document tower", 1),
    (no_collection, "collection", 2),
    (no_file, "collection", 2),
    (plain_file_for_vectors, "collection", 2),
    (no_server, "collection", 4),
    (no_address, "collection", 2),
    (no_token_file, "collection", 2),
    (words_of_another, "words", 2),
    (damaged_words, "words", 1),
]


@pytest.mark.packaging
@pytest.mark.parametrize(("spoil", "area", "exit_code"), PROBLEMS, ids=[each[0].__name__ for each in PROBLEMS])
def test_every_problem_comes_with_what_to_do_and_without_a_secret(
    project: Project, spoil: Callable[[Project], None], area: str, exit_code: int
) -> None:
    spoil(project)
    findings = project.findings()
    assert (findings[area].status, findings[area].exit_code) == ("problem", exit_code), findings[area]
    for finding in findings.values():
        assert finding.what.strip(" .;:")
        assert finding.status != "problem" or len(finding.way_out) > 10, finding
        assert "S3cret" not in f"{finding}"


@pytest.mark.parametrize(
    "error",
    [
        Retry("Milvus at x is unreachable or busy: 3. Deadline"),
        Stop("x failed: y"),
        Stop("x is damaged: y; export the tower again"),
        WrongUse("x is not y"),
        SpaceMismatch("x", expected="a", came="b", way_out="Use c."),
        missing_extra("tantivy", "local"),
    ],
)
@pytest.mark.parametrize("area", sorted(WAYS_OUT))
def test_every_error_in_every_area_has_a_way_out(area: str, error: Any) -> None:
    finding = problem(area, error)
    assert finding.what
    assert finding.way_out
    assert finding.what in str(error)


def test_a_package_that_is_missing_is_told_by_the_line_that_installs_it() -> None:
    finding = problem("words", missing_extra("tantivy", "local"))
    assert finding.what == "this needs the package 'tantivy', which is not installed"
    assert finding.way_out == "pip install 'bartizan-search[local]'"


def test_the_source_and_the_default_dead_letters_are_looked_at(project: Project) -> None:
    findings = project.findings()
    assert (findings["source"].status, findings["source"].what) == ("ok", str(project.folder / "corpus.jsonl"))
    assert findings["dead letters"].what == f"{project.folder / 'corpus.jsonl.dead.jsonl'} can be written"
    assert not (project.folder / "corpus.jsonl.dead.jsonl").exists()


def test_default_dead_letters_that_cannot_be_written_are_a_problem(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != project.folder)
    finding = project.findings()["dead letters"]
    assert (finding.status, finding.exit_code) == ("problem", 1)
    assert f"write access to {project.folder}" in finding.way_out


def test_a_source_that_is_not_there_is_the_same_exit_code_for_doctor_and_ingest(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    no_source(project)
    for words in (("ingest", str(project.file)), ("doctor", "--json", "--config", str(project.file))):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 2
    assert any(finding["area"] == "source" for finding in json.loads(capsys.readouterr().out))


@pytest.mark.parametrize(
    ("installed", "extra", "advice"),
    [
        ({"faiss-cpu"}, "gpu", "make another environment: faiss-cpu is in this one. There: pip install"),
        ({"faiss-gpu"}, "local", "make another environment: faiss-gpu is in this one. There: pip install"),
        (set(), "gpu", "if you need it: pip install 'bartizan-search[gpu]'"),
        (set(), "local", "if you need it: pip install 'bartizan-search[local]'"),
    ],
)
def test_two_builds_of_faiss_are_never_advised_for_one_environment(
    monkeypatch: pytest.MonkeyPatch, installed: set[str], extra: str, advice: str
) -> None:
    monkeypatch.setattr(installation, "_installed", lambda name: name in installed)
    monkeypatch.setattr(installation, "find_spec", lambda name: object())
    findings = {finding.area: finding for finding in installation.examine()}
    assert advice in findings[f"extra {extra}"].way_out


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://root:S3cret@milvus:19530", "http://milvus:19530"),
        ("http://root:S3/cr@et@milvus:19530", "http://milvus:19530"),
        ("https://token@milvus", "https://milvus"),
        ("http://milvus:19530", "http://milvus:19530"),
        ("folder@home/index.db", "folder@home/index.db"),
        ("cannot use [http://root:S3cret@milvus] or b@c", "cannot use [http://milvus] or b@c"),
    ],
)
def test_an_address_is_shown_without_its_password(uri: str, shown: str) -> None:
    assert without_password(uri) == shown


def test_the_store_shows_its_address_without_the_password_and_so_do_its_failures() -> None:
    connection = Connection("http://root:S3cret@milvus:19530", None, 1.0)
    assert connection.place == "http://milvus:19530"
    from pymilvus.exceptions import ConnectionConfigException

    with pytest.raises(WrongUse) as refusal, calling(connection.place):
        raise ConnectionConfigException(message="Illegal uri: [http://root:S3cret@milvus:19530], expected another")
    assert "S3cret" not in str(refusal.value)


def test_a_collection_that_is_there_is_told_without_the_password(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Store:
        """Has something to say."""

        remarks = ("the index is flat, though the configuration asks for hnsw at http://me:S3cret@milvus; reindex",)

        def close(self) -> None: ...

    class Backend:
        """Has every collection."""

        def open(self, collection: object, *, create: bool = True) -> Store:
            assert not create
            return Store()

        def close(self) -> None: ...

    project.replace('uri = "memory:"', 'uri = "http://root:S3cret@milvus:19530"')
    monkeypatch.setattr(BackendSettings, "open", lambda settings: Backend())
    found = [finding for finding in configuration.examine(project.file) if finding.area == "collection"]
    assert [finding.what for finding in found] == [
        "docs at http://milvus:19530, same space",
        "the index is flat, though the configuration asks for hnsw at http://milvus",
    ]
    assert (found[1].status, found[1].way_out, found[1].exit_code) == ("note", "reindex", 0)


def test_each_tower_of_each_leg_is_probed_and_named(project: Project) -> None:
    shutil.copytree(export_folder("roberta", "fp32"), project.folder / "other")
    small = '[spaces.small]\ndocument_tower = "other"\n'
    project.replace("[encoders.document]", f"{small}[encoders.document]")
    found = project.findings()
    specs = {"dense": TowerSpec.read(project.folder / "tower"), "small": TowerSpec.read(project.folder / "other")}
    for leg, spec in specs.items():
        assert (found[f"space ({leg})"].status, found[f"space ({leg})"].what) == ("ok", spec.space_id)
        for role in ("document", "query"):
            assert found[f"{role} tower ({leg})"].status == "ok"
            assert spec.tower_id in found[f"{role} tower ({leg})"].what
    (project.folder / "other/model.onnx").write_bytes(b"cut")
    found = project.findings()
    assert found["query tower (small)"].status == "problem"
    assert found["query tower (dense)"].status == "ok"
    project.replace(small, f'{small}query_tower = "tower"\n')
    found = project.findings()
    assert (found["space (small)"].status, found["space (small)"].exit_code) == ("problem", 3)
    assert found["space (dense)"].status == "ok"
    assert "collection" not in found


@pytest.mark.parametrize(
    ("key", "place", "told"),
    [
        ("uri", "tower", "it is a folder"),
        ("uri", "corpus.jsonl/index", "corpus.jsonl is a file"),
        ("uri", "milvus-lite:corpus.jsonl", "it is a file, where a folder should be"),
        ("lexical", "corpus.jsonl", "it is a file, where a folder should be"),
        ("lexical", "corpus.jsonl/words", "corpus.jsonl is a file"),
        ("dead_letters", "tower", "it is a folder"),
    ],
)
def test_what_stands_in_the_way_is_no_place_that_can_be_written(
    project: Project, key: str, place: str, told: str
) -> None:
    if key == "dead_letters":
        project.replace('path = "corpus.jsonl"', f'path = "corpus.jsonl"\ndead_letters = "{place}"')
    else:
        line = f'uri = "{place}"' if key == "uri" else f'uri = "index.bartizan"\nlexical = "{place}"'
        project.replace('uri = "memory:"', line)
    found = [each for each in configuration.examine(project.file) if "cannot be written" in each.what]
    (finding,) = found
    assert told in finding.what
    assert finding.exit_code == 2
    assert "choose another path" in (finding.way_out or "")
