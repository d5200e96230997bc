"""`bartizan collection`, `bartizan ingest -` and `--prune` as a user meets them, on the embedded store and on Lite."""

import io
import json
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from bartizan_connector.__main__ import main
from bartizan_connector.commands import ingest
from bartizan_connector.stream.jsonl import JsonlSource
from bartizan_connector.stream.source import Batch
from tests.exports import export_folder

ONE, TWO = {"_id": "a", "title": "", "text": "one tower"}, {"_id": "b", "title": "", "text": "two towers"}


class Project:
    """A folder with a configuration, and the terminal of its user."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.capsys, self.monkeypatch = folder, capsys, monkeypatch
        self.configure("index.bartizan", "true")
        self.corpus = folder / "corpus.jsonl"
        monkeypatch.chdir(folder)

    def configure(self, uri: str, lexical: str) -> None:
        (self.folder / "bartizan.toml").write_text(
            f'collection.name = "docs"\nspaces.dense.document_tower = "{export_folder("bert", "fp32")}"\n'
            f'backend = {{ uri = "{uri}", lexical = {lexical} }}\nsource.path = "corpus.jsonl"\n',
            encoding="utf-8",
        )

    def __call__(self, *words: str, stdin: Sequence[object] | None = None) -> tuple[int, str, str]:
        if stdin is not None:
            text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in stdin)
            self.monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        self.capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(words)
        said = self.capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    def json(self, *words: str, stdin: Sequence[object] | None = None) -> Any:
        code, out, err = self(*words, "--json", stdin=stdin)
        assert code == 0, err
        return json.loads(out)

    def ids(self) -> list[str]:
        return [id for id in "abcde" if self("collection", "get", id)[0] == 0]


@pytest.fixture
def bartizan(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Project:
    return Project(tmp_path, capsys, monkeypatch)


@pytest.mark.packaging
@pytest.mark.parametrize(("uri", "lexical"), [("index.bartizan", "true"), ("index.db", '"words"')])
def test_a_collection_from_its_making_to_its_end(bartizan: Project, uri: str, lexical: str) -> None:
    bartizan.configure(uri, lexical)
    code, _, err = bartizan("collection", "count")
    assert code == 2
    assert "ingest documents first" in err
    assert bartizan.json("collection", "list") == []
    code, out, err = bartizan("collection", "put", "-", stdin=[ONE, "", {"_id": "x"}, TWO])
    assert code == 1
    assert out.split() == ["2", "written", "1", "refused"]
    assert "document 2: 'text' is missing" in err
    assert bartizan.json("collection", "count") == {"count": 2}
    assert bartizan.json("collection", "count", "--filter", "id == 'a'") == {"count": 1}
    assert bartizan.json("collection", "get", "b", "a") == [TWO, ONE]
    code, out, err = bartizan("collection", "get", "a", "never")
    assert (code, json.loads(out)) == (1, ONE)
    assert "not stored: never" in err
    (listed,) = bartizan.json("collection", "list")
    assert listed["names"] == ["docs"]
    shown = bartizan.json("collection", "show")
    assert (shown["documents"], shown["physical_name"]) == (2, listed["physical_name"])
    assert shown["bytes"] > 1_000
    assert "space tw-" in bartizan("collection", "show")[1]
    assert bartizan.json("collection", "delete", "a")["deleted"] == 1
    assert bartizan.json("collection", "compact")["forgotten"] == 0, "of today, so it is kept"
    assert bartizan.json("collection", "compact", "--keep-days", "0")["forgotten"] == 1
    assert bartizan.ids() == ["b"]
    code, _, err = bartizan("collection", "drop")
    assert code == 2
    assert "with its 1 documents for good; add --yes" in err
    assert bartizan.ids() == ["b"]
    assert bartizan("collection", "drop", "--yes")[0] == 0
    assert bartizan("collection", "count")[0] == 2


def test_a_delete_by_a_version_of_the_records_own_is_kept_as_it_tells_no_time(bartizan: Project) -> None:
    bartizan("collection", "put", "-", stdin=[ONE, {"_id": "v", "_version": 7, "_deleted": True}])
    assert bartizan.json("collection", "compact", "--keep-days", "0")["forgotten"] == 0
    assert bartizan.json("collection", "put", "-", stdin=[TWO | {"_id": "v", "_version": 6}])["stale"] == 1


def test_a_backup_is_a_store_and_replaces_nothing(bartizan: Project) -> None:
    bartizan("collection", "put", "-", stdin=[ONE, TWO])
    assert bartizan("collection", "backup", "copy.bartizan")[0] == 0
    bartizan("collection", "drop", "--yes")
    assert bartizan("collection", "backup", "copy.bartizan")[0] == 2
    bartizan.configure("copy.bartizan", "true")
    assert bartizan.ids() == ["a", "b"]
    assert bartizan.json("search", "towers", "--legs", "lexical")["results"][0]["id"] in ("a", "b")
    bartizan.configure("index.db", '"words"')
    code, _, err = bartizan("collection", "backup", "other")
    assert code == 2
    assert "is no embedded store" in err


def test_ingest_reads_standard_input(bartizan: Project) -> None:
    report = bartizan.json("ingest", "-", stdin=[ONE, {"_id": "c"}, TWO])
    assert (report["written"], report["dead"], report["dead_letters"]) == (2, 1, "stdin.dead.jsonl")
    letter = json.loads((bartizan.folder / "stdin.dead.jsonl").read_text())
    assert (letter["position"], letter["reason"]) == ("stdin:2", "'text' is missing")
    report = bartizan.json("ingest", "bartizan.toml", "-", stdin=[ONE | {"text": "changed"}, TWO])
    assert (report["written"], report["unchanged"]) == (1, 1)
    assert not (bartizan.folder / "stdin.dead.jsonl").read_text()
    assert bartizan.json("ingest", "-", stdin=[ONE, {"_id": "b", "_deleted": True}])["deleted"] == 1
    assert bartizan.json("collection", "get", "a") == [ONE]
    code, _, err = bartizan("ingest", "bartizan.toml", "corpus.jsonl")
    assert code == 2
    assert "expected - for standard input" in err


def test_prune_removes_what_the_source_no_longer_holds(bartizan: Project) -> None:
    def corpus(*lines: object) -> None:
        bartizan.corpus.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")

    c, d = {"_id": "c", "text": "gone"}, {"_id": "d", "text": "own version", "_version": 3}
    corpus(ONE, TWO, c, d)
    assert bartizan.json("ingest", "--prune")["pruned"] == 0
    corpus(ONE, TWO)
    assert bartizan.json("ingest")["unchanged"] == 2
    assert bartizan.ids() == ["a", "b", "c", "d"], "nothing goes by itself"
    report = bartizan.json("ingest", "--prune")
    assert (report["unchanged"], report["pruned"]) == (2, 2)
    assert bartizan.ids() == ["a", "b"]
    corpus(ONE, TWO, c, d | {"_version": 5})
    assert bartizan.json("ingest")["written"] == 2, "what comes back is newer than its removal"
    corpus(ONE, {"_id": "b"})
    code, out, err = bartizan("ingest", "--prune")
    assert code == 1
    assert "nothing was pruned: 1 lines could not be stored" in err
    assert "1  unchanged" in out
    assert bartizan.ids() == ["a", "b", "c", "d"]
    corpus()
    code, _, err = bartizan("ingest", "--prune")
    assert code == 1
    assert "the source holds no document, so all would go" in err
    assert bartizan("ingest", "--force")[0] == 2
    assert bartizan.ids() == ["a", "b", "c", "d"]
    assert bartizan.json("ingest", "--prune", "--force")["pruned"] == 4
    assert bartizan.ids() == []


def test_who_is_told_to_stop_before_all_was_read_prunes_nothing(
    bartizan: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [{"_id": f"d{number}", "text": "some words"} for number in range(600)]
    bartizan.corpus.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    assert bartizan.json("ingest")["written"] == 600
    stop, poll = Event(), JsonlSource.poll

    def told(source: JsonlSource, timeout: float) -> Batch | None:
        batch = poll(source, timeout)
        stop.set()
        return batch

    monkeypatch.setattr(JsonlSource, "poll", told)
    monkeypatch.setattr(ingest, "told_to_stop", lambda: nullcontext(stop))
    code, out, err = bartizan("ingest", "--prune", "--force")
    assert code == 1
    assert "nothing was pruned: the source was not read to its end" in err
    assert "256  unchanged" in out
    assert bartizan.json("collection", "count") == {"count": 600}


@pytest.mark.parametrize(
    "words", [("get", "a"), ("delete", "a"), ("count",), ("show",), ("drop", "--yes"), ("compact",)]
)
def test_what_only_looks_makes_no_collection(bartizan: Project, words: tuple[str, ...]) -> None:
    code, _, err = bartizan("collection", *words)
    assert code == 2
    assert "ingest documents first" in err
    assert not (bartizan.folder / "index.bartizan").exists()
