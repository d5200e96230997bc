"""`bartizan reembed` as a user meets it, on the embedded store with towers of other spaces, and of the same one."""

import json
from pathlib import Path
from typing import Any

import pytest

from bartizan_connector.__main__ import main
from bartizan_connector.space.spec import TowerSpec
from bartizan_encoders.tower import Tower
from bartizan_triton.export import export_tower
from tests.encoders import tiny
from tests.exports import export_folder, tower_folder

WORDS = ["one", "two", "three", "four", "five", "six"]
LINES = [{"_id": f"d{n}", "text": f"{word} tower"} for n, word in enumerate(WORDS)]


@pytest.fixture(scope="module")
def other_towers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`other` of another space, `query` of the space of the first: the exports that a new configuration names."""
    root = tmp_path_factory.mktemp("towers")
    tiny.saved(root / "tower", dim=8, seed=1)
    export_tower(root / "tower", root / "other")
    whole = Tower.load(tower_folder("bert"))
    query = whole.cut([0, 1])
    query.spec = query.spec.aligned_to(whole.spec)
    query.save(root / "small")
    export_tower(root / "small", root / "query")
    return root


class Project:
    """A folder with two configurations, and the terminal of its user."""

    def __init__(self, folder: Path, towers: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capsys = folder, capsys
        first = str(export_folder("bert", "fp32"))
        self.configure("bartizan.toml", first)
        self.configure("new.toml", str(towers / "other"))
        self.configure("query.toml", first, f'query_tower = "{towers / "query"}"')
        (folder / "corpus.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in LINES))
        judged = folder / "judged"
        (judged / "qrels").mkdir(parents=True)
        (judged / "qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\n")
        (judged / "queries.jsonl").write_text('{"_id": "q1", "text": "two"}\n')

    def configure(self, name: str, tower: str, more: str = "") -> None:
        (self.folder / name).write_text(
            f'collection.name = "docs"\n[spaces.dense]\ndocument_tower = "{tower}"\n{more}\n'
            '[backend]\nuri = "index.bartizan"\nlexical = true\n[source]\npath = "corpus.jsonl"\n'
        )

    def __call__(self, *words: str) -> tuple[int, str, str]:
        self.capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(words)
        said = self.capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    def json(self, *words: str, code: int = 0) -> Any:
        ended, out, err = self(*words, "--json")
        assert ended == code, err
        return json.loads(out)


@pytest.fixture
def bartizan(
    tmp_path: Path, other_towers: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Project:
    monkeypatch.chdir(tmp_path)
    project = Project(tmp_path, other_towers, capsys)
    assert project("ingest")[0] == 0
    return project


@pytest.mark.packaging
def test_long_documents_are_cut_anew_and_read_back_whole(bartizan: Project) -> None:
    long = " ".join(f"the {word} tower stands." for word in WORDS * 3)
    for name, tokens in (("bartizan.toml", 12), ("new.toml", 20)):
        with (bartizan.folder / name).open("a") as file:
            file.write(f"\n[chunks]\ntokens = {tokens}\noverlap = 2\n")
    with (bartizan.folder / "corpus.jsonl").open("a") as corpus:
        corpus.write(json.dumps({"_id": "long", "text": long}) + "\n")
    assert bartizan("ingest")[0] == 0
    plan = bartizan.json("reembed", "plan", "new.toml")
    assert plan["documents"] == 7
    assert plan["legs"]["dense"]["storage_bytes"] > 7 * 8 * 4, "a vector a chunk"
    run = bartizan.json("reembed", "run", "new.toml")
    assert run["difference"]["documents"] == run["difference"]["copied"] == 7
    assert run["difference"]["behind"] == 0
    bartizan.json("reembed", "swap", "new.toml")
    (found,) = bartizan.json("collection", "get", "long", "--config", "new.toml")
    assert found["text"] == long
    again = bartizan.json("reembed", "run", "new.toml")
    assert again["report"]["written"] == 0, "however it was cut, the content is the same"
    assert bartizan("reembed", "rollback", "new.toml")[0] == 0
    (found,) = bartizan.json("collection", "get", "long")
    assert found["text"] == long


def space(tower: Path) -> str:
    return TowerSpec.read(tower).space_id


def test_from_the_plan_to_the_drop(bartizan: Project, other_towers: Path) -> None:
    plan = bartizan.json("reembed", "plan", "new.toml")
    assert (plan["state"], plan["documents"], plan["sampled"]) == ("absent", 6, 6)
    cost = plan["legs"]["dense"]
    assert (cost["storage_bytes"], cost["tokens"] >= 12, cost["seconds"] > 0) == (6 * 8 * 4, True, True)
    assert space(export_folder("bert", "fp32")) in plan["changes"][0]
    assert f"→ dense, 8, space {space(other_towers / 'other')}" in plan["changes"][0]
    assert "documents, of which 6 were measured" in bartizan("reembed", "plan", "new.toml")[1]
    code, _, err = bartizan("reembed", "swap", "new.toml")
    assert code == 2
    assert "bartizan reembed run" in err
    ran = bartizan.json("reembed", "run", "new.toml")
    assert (ran["state"], ran["report"]["written"], ran["difference"]["lag"]) == ("filling", 6, 0)
    status = bartizan.json("reembed", "status", "new.toml", "--probe")
    assert {gate["name"]: gate["passed"] for gate in status["gates"]} == dict.fromkeys(
        ("count", "heads", "recall"), True
    )
    assert bartizan.json("search", "two")["space_id"] == space(export_folder("bert", "fp32"))
    code, _, err = bartizan("reembed", "drop", "new.toml")
    assert (code, "add --yes" in err) == (2, True)
    swapped = bartizan.json("reembed", "swap", "new.toml", "--judged", "judged", "--ndcg-tolerance", "1")
    assert (swapped["state"], swapped["former"]) == ("swapped", ran["serving"])
    assert [gate["name"] for gate in swapped["gates"]] == ["count", "heads", "recall", "ndcg", "agreement"]
    assert bartizan.json("search", "two", "--config", "new.toml")["space_id"] == space(other_towers / "other")
    code, _, err = bartizan("search", "two", "--legs", "dense")
    assert code == 3
    assert "bartizan reembed rollback" in err
    put = {"_id": "late", "text": "late tower"}
    Path("late.jsonl").write_text(json.dumps(put))
    assert bartizan("collection", "put", "late.jsonl", "--config", "new.toml")[0] == 0
    back = bartizan.json("reembed", "rollback", "new.toml")
    assert (back["state"], back["report"]["written"], back["serving"]) == ("filling", 1, ran["serving"])
    assert "late" in bartizan("collection", "get", "late")[1]
    code, out, _ = bartizan("reembed", "swap", "new.toml", "--ndcg-tolerance", "1")
    assert code == 0
    assert "the new collection is in use" in out
    code, _, err = bartizan("reembed", "drop", "new.toml", "--yes")
    assert (code, f"dropped {ran['serving']}" in err) == (0, True)
    assert bartizan.json("reembed", "status", "new.toml")["state"] == "stands"
    assert bartizan.json("search", "late", "--config", "new.toml")["results"]


def test_a_query_tower_of_the_same_space_encodes_no_document(
    bartizan: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bartizan_connector.encode.onnx import OnnxEncoder

    encoded: list[str] = []
    encode = OnnxEncoder.encode

    def counted(self: OnnxEncoder, texts: Any, role: Any, **more: Any) -> Any:
        encoded.extend(texts if role == "document" else [])
        return encode(self, texts, role, **more)

    monkeypatch.setattr(OnnxEncoder, "encode", counted)
    code, out, _ = bartizan("reembed", "plan", "query.toml")
    assert (code, "no document is encoded" in out) == (0, True)
    code, out, _ = bartizan("reembed", "run", "query.toml")
    assert (code, "no document has to be encoded" in out) == (0, True)
    words = ("reembed", "swap", "query.toml", "--judged", "judged", "--ndcg-tolerance", "1")
    judged = bartizan.json(*words)
    assert judged["state"] == "stands"
    assert [gate["name"] for gate in judged["gates"]] == ["ndcg", "agreement"]
    assert judged["gates"][1]["value"] is not None
    assert bartizan.json("collection", "list")[0]["names"] == ["docs"]
    assert not {line["text"] for line in LINES} & set(encoded)  # but golden texts, when a tower is opened
    assert bartizan("reembed", "rollback", "query.toml")[0] == 2
    assert bartizan("reembed", "drop", "query.toml", "--yes")[0] == 2


def test_a_gate_that_fails_keeps_the_name_where_it_is(bartizan: Project) -> None:
    before = bartizan.json("reembed", "run", "new.toml")["serving"]
    words = ("reembed", "swap", "new.toml", "--min-agreement", "1", "--min-recall", "1")
    Path("corpus.jsonl").write_text(json.dumps({"_id": "d7", "text": "seven"}))
    assert bartizan("ingest")[0] == 0
    code, _, err = bartizan(*words, "--judged", "judged")
    if code:  # towers of chance can agree by chance
        assert code == 1
        assert "everything stands as it did" in err
        assert "--force" in err
        assert bartizan.json("reembed", "status", "new.toml")["serving"] == before
        code, out, _ = bartizan(*words, "--judged", "judged", "--force", "agreement", "--force", "ndcg")
        assert (code, "passed over" in out) == (0, True)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("plan nowhere.toml", "nowhere.toml"),
        ("run new.toml --from somewhere", "stored or topic"),
        ("run new.toml --from topic", 'kind = "kafka"'),
        ("swap new.toml --force everything", "count, heads, recall, ndcg, agreement"),
        ("swap new.toml --judged nowhere", "cannot read the judged set"),
        ("swap new.toml --config nowhere.toml", "nowhere.toml"),
        ("swap new.toml --config moved.toml", "both configurations must be of one collection"),
        ("run fields.toml", "other [collection] fields"),
        ("rollback new.toml", "nothing to go back to"),
        ("drop new.toml --yes", "nothing to drop"),
        ("status news.toml", "no collection 'news' to re-embed"),
    ],
)
def test_wrong_uses_say_what_is_wrong(bartizan: Project, words: str, told: str) -> None:
    text = Path("new.toml").read_text()
    Path("moved.toml").write_text(text.replace("index.bartizan", "moved.bartizan"))
    Path("news.toml").write_text(text.replace('"docs"', '"news"'))
    Path("fields.toml").write_text(
        text.replace(
            'collection.name = "docs"', '[collection]\nname = "docs"\nfields = [{name = "year", type = "int"}]'
        )
    )
    code, out, err = bartizan("reembed", *words.split())
    assert (code, out) == (2, "")
    assert told in err
    assert bartizan.json("collection", "list")[0]["names"] == ["docs"]
