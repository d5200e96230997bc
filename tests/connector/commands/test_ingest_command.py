"""`bartizan ingest` as a user meets it: a real tower, a real index, runs that are killed, files that are wrong."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bartizan_connector.__main__ import main
from bartizan_connector.base.errors import Stop
from bartizan_connector.commands.ingest import _conclude, ingest_all
from bartizan_connector.config import Config
from bartizan_connector.config.towers import collection_of
from bartizan_connector.search.configured import open_words
from bartizan_connector.stream.report import Report
from bartizan_connector.stream.source import Message
from bartizan_triton.export import export_tower
from tests.connector.stream.streams import ListSource
from tests.encoders import tiny

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def towers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Exports of two towers of different spaces."""
    folder = tmp_path_factory.mktemp("towers")
    for seed, name in enumerate(("one", "other")):
        export_tower(tiny.saved(folder / f"{name}-tower", seed=seed), folder / name)
    return folder


class Project:
    """A folder with a configuration, as a user has it."""

    def __init__(self, folder: Path, towers: Path) -> None:
        self.folder = folder
        self.towers = towers
        self.corpus = folder / "corpus.jsonl"
        self.letters = folder / "corpus.jsonl.dead.jsonl"
        self.config = folder / "bartizan.toml"
        self.configure()

    def configure(
        self,
        tower: str = "one",
        space: str = "",
        backend: str = 'uri = "index.db"',
        batch: int = 16,
        more: str = "",
    ) -> None:
        self.config.write_text(
            f"""
            [collection]
            name = "docs"
            fields = [{{ name = "year", type = "int", default = 0 }}]
            [spaces.dense]
            document_tower = "{self.towers / tower}"
            {space}
            [encoders.document]
            threads = 1
            {more}
            [backend]
            {backend}
            lexical = "words"
            [source]
            path = "corpus.jsonl"
            batch_size = {batch}
            """,
            encoding="utf-8",
        )

    def write(self, lines: Sequence[dict[str, Any] | str]) -> None:
        text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
        self.corpus.write_text(text, encoding="utf-8")

    def stored(self, ids: Sequence[str]) -> set[str]:
        """Which of these ids are known, alive and whole, in the index and in the words."""
        config = Config.load(self.config)
        backend, words = config.backend.open(), open_words(config)
        assert words is not None
        heads = backend.open(collection_of(config), create=False).heads(ids)
        by_word = words.hashes(ids)
        words.close()
        backend.close()
        assert by_word == {id: head.hash for id, head in heads.items() if not head.deleted}
        return {id for id, head in heads.items() if head.hash and not head.deleted}


@pytest.fixture
def project(tmp_path: Path, towers: Path) -> Project:
    return Project(tmp_path, towers)


def documents(count: int) -> list[dict[str, Any]]:
    return [{"_id": f"d{number}", "title": f"tower {number}", "text": "one of two towers"} for number in range(count)]


def run(project: Project, *options: str) -> int:
    """The exit code of the command in this process."""
    try:
        main(["ingest", str(project.config), *options])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def start(project: Project, before: str = "") -> "subprocess.Popen[str]":
    """The command in a process of its own, which runs these lines of Python first."""
    program = f"{before}\nimport runpy\nrunpy.run_module('bartizan_connector', run_name='__main__', alter_sys=True)"
    return subprocess.Popen(
        [sys.executable, "-c", program, "ingest", str(project.config), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=project.folder,
        env=os.environ | {"PYTHONPATH": str(ROOT / "connector")},
    )


@pytest.mark.packaging
def test_a_run_stands_back_for_others_as_far_as_it_is_told(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    backs: list[int] = []
    monkeypatch.setattr(os, "nice", backs.append)
    project.write(documents(1))
    assert (run(project), backs) == (0, [])
    project.config.write_text(f"{project.config.read_text()}\n[ingest]\nnice = 10\n")
    assert (run(project), backs) == (0, [10])


def test_documents_are_stored_and_a_second_run_writes_nothing(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.write([*documents(40), {"_id": "d0", "_deleted": True}])
    assert run(project, "--json") == 0
    first = json.loads(capsys.readouterr().out)
    counts = ("read", "written", "unchanged", "stale", "deleted", "dead")
    assert [first[name] for name in counts] == [41, 40, 0, 0, 1, 0]
    assert run(project, "--json") == 0
    second = json.loads(capsys.readouterr().out)
    assert [second[name] for name in counts] == [41, 0, 40, 1, 0, 0]
    assert project.stored([f"d{number}" for number in range(40)]) == {f"d{number}" for number in range(1, 40)}


def test_the_table_says_what_became_of_the_lines(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    project.write([*documents(3), {"_id": "e", "text": "one", "url": "x"}, "{"])
    assert run(project) == 0
    printed = capsys.readouterr()
    assert "4  written    new or changed, encoded and stored" in printed.out
    assert "5  read in" in printed.out
    assert f"1 line could not be stored; see the reasons in {project.letters}" in printed.err
    assert "not declared under [collection] fields were not stored: url (1)" in printed.err


def test_a_file_that_holds_no_document_at_all_is_a_failure(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.corpus.write_text("id,text\n1,one\n2,two\n")
    assert run(project) == 1
    printed = capsys.readouterr()
    assert f"every line of {project.corpus} was refused (3), the first because: " in printed.err
    assert "The file seems to be CSV" in printed.err
    assert "3  dead" in printed.out, "the counts are told all the same"


def test_what_is_followed_ends_well_though_all_that_it_gave_was_refused(project: Project) -> None:
    report, settings = Report(read=3, dead=3), Config.load(project.config)
    with pytest.raises(Stop, match="every message was refused"):
        _conclude(report, ListSource([]), settings, None, strict=False, endless=False)
    _conclude(report, ListSource([]), settings, None, strict=False, endless=True)


def test_a_bad_line_is_set_aside_with_its_number_and_reason(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.write([documents(1)[0], '{"_id": "broken', {"_id": "x", "text": "one", "year": "2020"}])
    assert run(project, "--strict", "--json") == 1
    report = json.loads(capsys.readouterr().out)
    assert (report["written"], report["dead"], report["dead_letters"]) == (1, 2, str(project.letters))
    letters = [json.loads(line) for line in project.letters.read_text(encoding="utf-8").splitlines()]
    assert [(letter["position"], letter["text"]) for letter in letters] == [
        ("corpus.jsonl:2", '{"_id": "broken'),
        ("corpus.jsonl:3", '{"_id": "x", "text": "one", "year": "2020"}'),
    ]
    assert "the line ends in the middle" in letters[0]["reason"]
    assert letters[1]["reason"] == "the field 'year' must be of type int, got the string '2020'"
    project.write(documents(1))
    assert run(project, "--strict") == 0


DIES_AFTER_ITS_EIGHTH_WRITE = """
import itertools, os, signal
from bartizan_connector.store.milvus.writing import Writer
upsert, writes = Writer.upsert, itertools.count(1)
def last(self, rows, part=None):
    upsert(self, rows, part)
    if next(writes) == 8:
        os.kill(os.getpid(), signal.SIGKILL)
Writer.upsert = last
"""
"""In the middle of a batch: its vectors are stored, its words are not, and nothing of it is committed."""


@pytest.mark.packaging
def test_a_killed_run_goes_on_where_it_stopped(project: Project) -> None:
    count, before_death = 200, 8 * 16 - 1
    lines: list[dict[str, Any] | str] = [*documents(count)]
    lines.insert(50, "not a record")
    project.write(lines)
    process = start(project, DIES_AFTER_ITS_EIGHTH_WRITE)
    assert process.communicate(timeout=120)[0] == ""
    assert process.returncode == -signal.SIGKILL
    assert project.letters.stat().st_size, "what was set aside in a batch that was committed is kept"

    process = start(project)
    printed, remarks = process.communicate(timeout=120)
    assert process.returncode == 0, remarks
    report = json.loads(printed)
    assert report["unchanged"] == before_death, "what had been stored is not written again"
    assert (report["written"], report["dead"]) == (count - before_death, 1)
    ids = [f"d{number}" for number in range(count)]
    assert project.stored(ids) == set(ids)


def test_documents_are_stored_with_the_vectors_of_every_tower(
    project: Project, towers: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project.configure(more=f'[spaces.second]\ndocument_tower = "{towers / "other"}"')
    project.write(documents(5))
    assert run(project, "--json") == 0
    assert json.loads(capsys.readouterr().out)["written"] == 5
    config = Config.load(project.config)
    backend = config.backend.open()
    store = backend.open(collection_of(config), create=False)
    kept = store.get(["d0", "d3"], vectors=True)
    assert set(kept) == {"d0", "d3"}
    (row,) = kept["d3"].rows
    assert set(row.vectors) == {"dense", "second"}
    assert row.vectors["dense"].space_id != row.vectors["second"].space_id
    backend.close()


def test_any_source_can_be_ingested_from_python(project: Project) -> None:
    record = json.dumps({"_id": "mine", "title": "one tower", "text": ""}).encode()
    source = ListSource(
        [Message(position="list:0", value=record, version=1), Message(position="1", value=b"{", version=2)]
    )
    report = ingest_all(Config.load(project.config), source)
    assert (report.read, report.written, report.dead, source.committed) == (2, 1, 1, 2)
    assert project.stored(["mine"]) == {"mine"}


INTERRUPTED_IN_ITS_THIRD_WRITE = DIES_AFTER_ITS_EIGHTH_WRITE.replace("== 8", "== 3").replace("SIGKILL", "SIGINT")


@pytest.mark.packaging
def test_an_interrupted_run_says_how_to_go_on_and_goes_on(project: Project) -> None:
    project.write(documents(200))
    process = start(project, INTERRUPTED_IN_ITS_THIRD_WRITE)
    printed, remarks = process.communicate(timeout=120)
    assert (process.returncode, printed) == (130, "")
    assert "interrupted; what was committed is stored" in remarks
    assert "Run the same command again: it completes what was begun" in remarks
    assert "Traceback" not in remarks
    process = start(project)
    report = json.loads(process.communicate(timeout=120)[0])
    assert report["unchanged"] >= 2 * 16
    assert report["unchanged"] + report["written"] == 200
    ids = [f"d{number}" for number in range(200)]
    assert project.stored(ids) == set(ids)


FULL = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))"


@pytest.mark.packaging
def test_a_full_disk_is_told_and_nothing_is_lost(project: Project) -> None:
    count = 200
    project.write(documents(count))
    process = start(project, FULL)
    remarks = process.communicate(timeout=120)[1]
    assert process.returncode == 1, remarks
    assert "has no room to write: [Errno 27] File too large. Make room and run again" in remarks
    assert "Traceback" not in remarks
    assert run(project) == 0
    ids = [f"d{number}" for number in range(count)]
    assert project.stored(ids) == set(ids)


def test_towers_of_another_space_are_refused_before_anything_is_written(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.write(documents(2))
    assert run(project) == 0
    project.configure(tower="other")
    project.write([{"_id": "new", "text": "one"}])
    assert run(project) == 3
    assert "another space" in capsys.readouterr().err
    project.configure(space='space_id = "tw-somebody-else"')
    assert run(project) == 3
    assert "pins another space" in capsys.readouterr().err
    project.configure()
    assert project.stored(["d0", "d1", "new"]) == {"d0", "d1"}


def test_what_cannot_be_reached_is_told_at_once(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    project.write(documents(1))
    project.configure(backend='uri = "http://127.0.0.1:9"\ntimeout = 0.5')
    started = time.monotonic()
    assert run(project) == 4
    assert time.monotonic() - started < 20
    assert "127.0.0.1:9" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda project: project.config.unlink(), "cannot read the configuration"),
        (lambda project: project.corpus.unlink(), "there is no JSON Lines file or folder at"),
        (lambda project: project.config.write_text(project.config.read_text().split("[source]")[0]), "has no [source]"),
        (lambda project: project.config.write_text(project.config.read_text() + 'dead = "x"\n'), "unknown key"),
    ],
    ids=["no configuration", "no corpus", "no source", "a typo"],
)
def test_wrong_use_is_told(project: Project, capsys: pytest.CaptureFixture[str], spoil: Any, message: str) -> None:
    project.write(documents(1))
    spoil(project)
    assert run(project) == 2
    assert message in capsys.readouterr().err


def test_thousands_of_stale_or_dead_lines_are_a_failure(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    """Documents that a file's time has stamped, and then versions of their own that are far below."""
    project.write(documents(1))
    assert run(project) == 0
    stale = json.dumps({"_id": "d0", "text": "changed", "_version": 7})
    gone = [{"_id": f"e{number}", "_version": 1, "_deleted": True} for number in range(500)]
    project.configure(batch=500)
    project.write([*[stale] * 700, *["{"] * 800, *gone])
    assert run(project, "--json") == 1
    said = capsys.readouterr()
    told = " ".join(said.err.split())
    assert (
        "failed: 1,500 of 2,000 lines were stale or dead, which is more than [ingest] fail_above = 0.5 allows" in told
    )
    assert re.search(
        r"was a clock ahead\? Give the records a _version that grows. corpus.jsonl:1: its version is 7, and \d{19} "
        r"\(stamped 20\d\d-.*a _version of your own has to be higher than that\) is stored",
        told,
    )
    assert json.loads(said.out[said.out.index("{") :])["stale_example"].startswith("corpus.jsonl:1")
    with project.config.open("a", encoding="utf-8") as file:
        file.write("\n[ingest]\nfail_above = 0.8\n")
    assert run(project) == 0
    project.write([stale] * 999)
    assert run(project) == 0, "hundreds are a matter of single lines"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--follow"], "files have an end, and are not followed"),
        (["--follow", "--until-caught-up"], "give one of them"),
    ],
)
def test_what_has_an_end_is_not_followed(
    project: Project, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    project.write(documents(1))
    assert run(project, *options) == 2
    assert message in capsys.readouterr().err


def test_files_are_always_read_until_caught_up(project: Project) -> None:
    project.write(documents(2))
    assert run(project, "--until-caught-up") == 0
    assert project.stored(["d0", "d1"]) == {"d0", "d1"}
