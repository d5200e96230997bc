"""`bartizan dlq` as a user meets it: the letters of a file, listed and given again after the cause was mended."""

import json
from pathlib import Path
from typing import Any

import pytest

from bartizan_connector.__main__ import main
from tests.exports import export_folder

HUGE = "one two three four. " * 4_000
LINES = [
    json.dumps({"_id": "a", "text": "one tower"}),
    "not json",
    json.dumps({"_id": "huge", "text": HUGE}),
]


@pytest.fixture
def bartizan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """A folder of which two of three lines were set aside, and the terminal of its user."""
    monkeypatch.chdir(tmp_path)
    Path("corpus.jsonl").write_text("\n".join(LINES) + "\n")
    Path("bartizan.toml").write_text(
        f'collection.name = "docs"\n[spaces.dense]\ndocument_tower = "{export_folder("bert", "fp32")}"\n'
        '[backend]\nuri = "index.bartizan"\n[source]\npath = "corpus.jsonl"\n'
    )

    def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(words)
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    assert run("ingest")[0] == 0
    return run


def test_a_text_that_was_too_long_is_cut_when_it_is_given_again(bartizan: Any) -> None:
    listed = json.loads(bartizan("dlq", "list", "--json")[1])["letters"]
    assert [(each["source"], each["id"]) for each in listed] == [("corpus.jsonl:2", ""), ("corpus.jsonl:3", "huge")]
    assert bartizan("dlq", "replay", "--id", "huge")[0] == 1, "nothing was mended yet"
    with Path("bartizan.toml").open("a") as file:
        file.write("[chunks]\n")
    for code, options in ((0, ["--id", "huge", "--dry-run"]), (0, ["--id", "huge"]), (1, ["--all"])):
        ended, out, _ = bartizan("dlq", "replay", "--json", *options)
        facts = json.loads(out)
        is_all = "--all" in options
        assert (ended, facts["written"], facts["dead"]) == (code, not is_all, is_all)
    assert json.loads(bartizan("collection", "get", "huge")[1])["text"] == HUGE
    assert bartizan("ingest", "--json")[0] == 0
    assert [each["source"] for each in json.loads(bartizan("dlq", "list", "--json")[1])["letters"]] == [
        "corpus.jsonl:2"
    ]


def test_which_letters_are_given_again_has_to_be_said(bartizan: Any) -> None:
    for words in (["replay"], ["replay", "--all", "--id", "huge"], ["list", "--since", "yesterday"]):
        assert bartizan("dlq", *words)[0] == 2
    code, out, err = bartizan("dlq", "replay", "--id", "nobody")
    assert (code, "no such letter in corpus.jsonl.dead.jsonl" in err) == (0, True)
    assert "0  given again" in out
    assert len(json.loads(bartizan("dlq", "list", "--json", "--limit", "1")[1])["letters"]) == 1
    assert "and 1 more; --limit shows them" in bartizan("dlq", "list", "--limit", "1")[2]
