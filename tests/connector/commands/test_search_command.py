"""`bartizan search` and `doctor` as a user meets them: legs, whose words, and a server that is not there."""

import json
import re
import shutil
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer
from threading import Event, Thread

import pytest

from bartizan_connector.__main__ import main
from bartizan_connector.base.errors import Retry
from bartizan_connector.search.retriever import Retriever
from bartizan_connector.search.words.index import WordIndex
from bartizan_connector.search.words.leftovers import left_behind
from tests.exports import export_folder

CONFIG = """
[collection]
name = "{collection}"
[spaces.dense]
document_tower = "{tower}"
[encoders.query]
threads = 1
[backend]
uri = "{uri}"
{backend}
[search]
{search}
[source]
path = "corpus.jsonl"
"""
AT_ONCE = 8.0
"""Seconds in which a refused connection is told, whatever the deadline."""


class Project:
    """A folder with a configuration and an ingested corpus."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.configure()

    def configure(
        self,
        *,
        collection: str = "docs",
        uri: str = "index.db",
        backend: str = 'lexical = "words"',
        search: str = "",
    ) -> None:
        tower = export_folder("bert", "fp32")
        text = CONFIG.format(collection=collection, uri=uri, backend=backend, search=search, tower=tower)
        (self.folder / "bartizan.toml").write_text(text, encoding="utf-8")

    def run(self, command: str, *arguments: str) -> int:
        config = str(self.folder / "bartizan.toml")
        place = (config,) if command in ("ingest", "verify") else ("--config", config)
        with pytest.raises(SystemExit) as exited:
            main((command, *arguments, *place))
        return int(exited.value.code or 0)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("project"))
    lines = [json.dumps({"_id": f"d{i}", "text": f"the tower of {word}"}) for i, word in enumerate(("stone", "wood"))]
    (project.folder / "corpus.jsonl").write_text("\n".join(lines), encoding="utf-8")
    assert project.run("ingest") == 0
    return project


@pytest.fixture
def project(made: Project) -> Project:
    made.configure()
    return made


def places(printed: str) -> list[set[str]]:
    return [set(result["legs"]) for result in json.loads(printed)["results"]]


def test_the_legs_of_a_search_can_be_chosen(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert project.run("search", "wood", "--json") == 0
    assert {"dense", "lexical"} in places(capsys.readouterr().out)
    assert project.run("search", "wood", "--json", "--legs", "dense") == 0
    assert places(capsys.readouterr().out) == [{"dense"}, {"dense"}]
    assert project.run("search", "wood", "--json", "--legs", "lexical") == 0
    assert places(capsys.readouterr().out) == [{"lexical"}]
    assert project.run("search", "wood", "--json", "--legs", "dense, lexical") == 0
    assert {"dense", "lexical"} in places(capsys.readouterr().out)


def test_the_configured_weight_of_words_is_used(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    project.configure(search="weights = { lexical = 0.5 }")
    assert project.run("search", "wood", "--json") == 0
    for result in json.loads(capsys.readouterr().out)["results"]:
        weights = {"dense": 1.0, "lexical": 0.5}
        expected = sum(weights[leg] / (60 + place["rank"]) for leg, place in result["legs"].items())
        assert result["score"] == pytest.approx(expected)


def test_a_leg_that_cannot_be_searched_is_wrong_use(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert project.run("search", "wood", "--legs", "sparse") == 2
    assert "unknown leg 'sparse'; this collection is searched by dense, lexical" in capsys.readouterr().err
    project.configure(backend="")
    assert project.run("search", "wood", "--legs", "lexical") == 2
    assert "set [backend] lexical to a folder and ingest" in " ".join(capsys.readouterr().err.split())


def test_half_a_character_is_no_text_for_a_tower_and_no_word(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    typed_in_latin_1 = b"caf\xe9 wood".decode("utf-8", "surrogateescape")
    assert project.run("search", typed_in_latin_1) == 2
    assert "is not valid Unicode (surrogates not allowed at character 3)" in capsys.readouterr().err
    assert project.run("search", typed_in_latin_1, "--json", "--legs", "lexical") == 0
    assert places(capsys.readouterr().out) == [{"lexical"}]


def test_a_document_cannot_steer_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = Project(tmp_path)
    hostile = {"_id": "a", "title": "\x1b[31mRED\x1b]0;pwn\x07\n  2  forged", "text": "the tower\x9b2J of wood"}
    (tmp_path / "corpus.jsonl").write_text(json.dumps(hostile), encoding="utf-8")
    assert project.run("ingest") == 0
    assert project.run("search", "wood") == 0
    lines = capsys.readouterr().out.splitlines()
    assert next(line for line in lines if "RED" in line).startswith(
        "  1  \ufffd[31mRED\ufffd]0;pwn\ufffd 2 forged  a  "
    )
    assert lines[-1] == "     the tower\ufffd2J of wood"
    assert project.run("search", "wood", "--json") == 0
    assert json.loads(capsys.readouterr().out)["results"][0]["fields"]["title"] == hostile["title"]


@pytest.mark.parametrize("timeout", ["0", "-1", "nan", "inf"])
def test_a_deadline_that_cannot_be_kept_is_wrong_use(
    project: Project, capsys: pytest.CaptureFixture[str], timeout: str
) -> None:
    assert project.run("search", "wood", "--timeout", timeout) == 2
    assert "is no deadline; give seconds, a finite number above 0" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("command", ["ingest", "search", "doctor"])
def test_the_words_of_another_collection_are_refused_and_nothing_changes(
    project: Project, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    project.configure(collection="news", uri="news.db")
    assert project.run(command, *(["wood"] if command == "search" else [])) == 2
    printed = capsys.readouterr()
    assert "belongs to collection 'docs', not to 'news'" in " ".join((printed.err + printed.out).split())
    assert not (project.folder / "news.db").exists()
    project.configure()
    assert project.run("search", "wood", "--json", "--legs", "lexical") == 0


def test_doctor_says_whose_the_words_are(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert project.run("doctor", "--json") == 0
    findings = {finding["area"]: finding for finding in json.loads(capsys.readouterr().out)}
    assert findings["words"]["what"].endswith("words belongs to collection 'docs' and takes a commit")
    project.configure(backend='lexical = "fresh"')
    assert project.run("doctor", "--json") == 0
    findings = {finding["area"]: finding for finding in json.loads(capsys.readouterr().out)}
    assert findings["words"]["status"] == "note"
    assert not (project.folder / "fresh").exists()


def test_doctor_commits_to_the_words(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    """As the next ingest will: what would stop that is found, and what a kill left is cleared away."""
    folder = project.folder / "copied"
    shutil.copytree(project.folder / "words", folder)
    project.configure(backend='lexical = "copied"')
    before = (folder / "meta.json").read_bytes()
    with closing(WordIndex(folder, "docs")) as words:
        words.delete(["d0"])
    (folder / "meta.json").write_bytes(before)
    assert left_behind(folder)
    assert project.run("doctor") == 0
    assert left_behind(folder) == []
    with closing(WordIndex(folder, "docs")) as writer:
        writer.announce(["a"])
        assert project.run("doctor") == 0
        assert "being written by another process" in capsys.readouterr().out
    assert project.run("doctor") == 0
    assert "a run was cut off at 1 ids" in capsys.readouterr().out
    (folder / "meta.json").write_text("{")
    assert project.run("doctor") == 1
    assert "lexical to a new folder and ingest again" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["search", "doctor"])
def test_where_no_server_listens_is_told_at_once(
    project: Project, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    project.configure(uri="http://127.0.0.1:9", backend="timeout = 30")
    begun = time.monotonic()
    assert project.run(command, *(["wood"] if command == "search" else [])) == 4
    assert time.monotonic() - begun < 10  # the towers are loaded within it too
    printed = capsys.readouterr()
    assert "http://127.0.0.1:9" in printed.err + printed.out
    begun = time.monotonic()
    with (
        Retriever.open(project.folder / "bartizan.toml") as opened,
        pytest.raises(Retry, match=r"http://127\.0\.0\.1:9 is unreachable: .*is \[backend\] uri its address"),
    ):
        opened.search("wood")
    assert time.monotonic() - begun < AT_ONCE


def test_a_title_does_not_hide_the_id(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = Project(tmp_path)
    lines = [{"_id": "d1", "title": "Wood", "text": "the tower of wood"}, {"_id": "d[2]", "text": "the tower of stone"}]
    (tmp_path / "corpus.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    assert project.run("ingest") == 0
    assert project.run("search", "wood", "--legs", "dense") == 0
    heads = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("     ")]
    assert sorted(re.split(r"  +", head.strip())[1:-2] for head in heads) == [["Wood", "d1"], ["d[2]"]]


def test_the_chunk_of_a_long_document_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = Project(tmp_path)
    project.configure(uri="index.bartizan", backend="lexical = true\n[chunks]\ntokens = 28")
    text = "The tower is of stone. It stands on a hill. " * 3 + "Its door is of wood."
    lines = [{"_id": "long", "title": "Tower", "text": text}, {"_id": "short", "text": "a door"}]
    (tmp_path / "corpus.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    assert project.run("doctor") == 2, "there is no collection yet"
    assert "at most 28 tokens, overlapping by 0, cut at the end of a sentence" in capsys.readouterr().out
    assert project.run("ingest") == 0
    capsys.readouterr()
    assert project.run("search", "wood", "--legs", "lexical") == 0
    head, passage = capsys.readouterr().out.splitlines()
    title, id, chunk = re.split(r"  +", head.strip())[1:4]
    assert (title, id) == ("Tower", "long")
    assert "wood" in passage
    assert "stone" not in passage
    assert project.run("search", "wood", "--legs", "lexical", "--json") == 0
    (found,) = json.loads(capsys.readouterr().out)["results"]
    assert chunk == f"chunk {found['chunk']}" != "chunk 0"
    assert found["legs"]["lexical"]["chunk"] == found["chunk"]
    assert found["fields"]["text"].strip() == passage.strip()


class Silent(ThreadingTCPServer):
    """Takes every connection, and never says a word."""

    daemon_threads = True

    class Listening(StreamRequestHandler):
        def handle(self) -> None:
            Event().wait(60)

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), self.Listening)


@pytest.mark.packaging
def test_a_hung_server_is_waited_for_to_the_deadline_and_no_longer(project: Project) -> None:
    """As a process of its own, from its start to its end."""
    server = Silent()
    Thread(target=server.serve_forever, daemon=True).start()
    uri = f"http://127.0.0.1:{server.server_address[1]}"
    config = str(project.folder / "bartizan.toml")
    search = [sys.executable, "-m", "bartizan_connector", "search", "wood", "--config", config, "--timeout", "1"]
    begun = time.monotonic()
    subprocess.run([*search, "--legs", "lexical"], check=True, capture_output=True, timeout=120)
    start_up = time.monotonic() - begun
    project.configure(uri=uri)
    begun = time.monotonic()
    ran = subprocess.run(search, capture_output=True, text=True, timeout=120)
    assert time.monotonic() - begun < 2.0 + 3 * start_up
    assert ran.returncode == 0, ran.stderr
    assert "wood" in ran.stdout
    assert "degraded: no dense leg: the dense leg had not answered by the deadline" in " ".join(ran.stderr.split())
    project.configure(uri=uri, backend="")
    begun = time.monotonic()
    ran = subprocess.run(search, capture_output=True, text=True, timeout=120)
    assert time.monotonic() - begun < 2.0 + 3 * start_up
    assert ran.returncode == 4, ran.stderr
    server.shutdown()
    server.server_close()


def test_words_alone_open_neither_the_tower_nor_the_store(project: Project) -> None:
    program = """
import sys
from bartizan_connector.__main__ import main
try:
    main(["search", "wood", "--legs", "lexical", "--json", "--config", sys.argv[1]])
finally:
    print(*(name for name in ("onnxruntime", "tokenizers", "pymilvus") if name in sys.modules), file=sys.stderr)
"""
    project.configure(uri="http://127.0.0.1:9")
    ran = subprocess.run(
        [sys.executable, "-c", program, str(project.folder / "bartizan.toml")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ran.returncode, ran.stderr.strip()) == (0, "")
    assert places(ran.stdout) == [{"lexical"}]
