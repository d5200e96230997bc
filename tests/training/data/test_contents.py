"""Which files a run holds itself to: those that decide what a step learns from, and no others; when they are read."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bartizan_connector.base.errors import WrongUse
from bartizan_training import recipe, settings
from bartizan_training.data.collections import BeirData, write_collection
from bartizan_training.data.contents import contents_of, readers_of
from bartizan_training.data.digests import PIECE, digest_of_files
from bartizan_training.data.pair_tables import PairRecords
from bartizan_training.data.pairs import read_pairs
from bartizan_training.data.texts import read_texts
from bartizan_training.data.triple_tables import Judged, Records, TripleLines
from bartizan_training.data.triples import read_triples
from bartizan_training.early_stop import Dev
from bartizan_training.mine.exact import Mine
from bartizan_training.pretraining.sizes import Size
from bartizan_training.settings import EarlyStop, PairsTable, Table, Weak
from bartizan_training.stages.pretrain import Pretrain
from bartizan_training.step import Step
from tests.training import toy

CHANGES = {
    "corpus.jsonl": ("of text", "of the text"),
    "queries.jsonl": ("asks", "wonders"),
    "qrels/train.tsv": ("q1\td1\t1\n", ""),
    "qrels/dev.tsv": ("q4\td4\t1\n", "q1\td1\t1\n"),
    "qrels/test.tsv": ("q6\td6\t1\n", "q2\td2\t1\nq4\td4\t1\n"),
    "queries.tsv": ("asks 1", "wonders 1"),
    "collection.tsv": ("text 1", "text one"),
    "triples.tsv": ("q1\td1\td2\n", ""),
    "negatives.jsonl": ('"q1", "negatives": ["d2"]', '"q1", "negatives": ["d3"]'),
    "records.jsonl": ("text 1", "text one"),
    "log.txt": ("asks 1\n", "wonders 1\n"),
    "README.md": ("it", "that"),
}
"""All that lies in the folder, and a change of each file that matters to whoever reads it."""
TABLES: dict[str, Callable[[Path], Table]] = {
    "pairs": lambda beir: PairsTable(path=beir),
    "pairs of the test split": lambda beir: PairsTable(path=beir, split="test"),
    "pairs with negatives": lambda beir: PairsTable(path=beir, negatives=beir / "negatives.jsonl"),
    "weak pairs": lambda beir: PairsTable(path=beir, weak=Weak(kept=1)),
    "records": lambda beir: PairRecords(kind="records", files=(beir / "records.jsonl",)),
    "records apart": lambda beir: PairRecords(kind="records", files=(beir / "records.jsonl",), held_out=beir),
    "judged triples": lambda beir: Judged(kind="judged", path=beir, negatives=beir / "negatives.jsonl"),
    "lines of triples": lambda beir: TripleLines(kind="tsv", path=beir),
    "lines of triples by tables": lambda beir: TripleLines(
        kind="tsv",
        file=beir / "triples.tsv",
        queries=beir / "queries.tsv",
        collection=beir / "collection.tsv",
        held_out=beir,
        held_out_split="dev",
    ),
    "records of triples": lambda beir: Records(kind="records", files=(beir / "records.jsonl",), held_out=beir),
    "queries": lambda beir: settings.Queries(kind="queries", path=beir),
    "queries of a split": lambda beir: settings.Queries(kind="queries", path=beir, split="dev"),
    "documents": lambda beir: settings.Documents(kind="documents", path=beir),
    "a log": lambda beir: settings.Lines(kind="lines", path=beir / "log.txt", held_out=beir),
    "sentences": lambda beir: settings.CorpusSentences(kind="corpus_sentences", path=beir, count=40),
    "early stop": lambda beir: EarlyStop(data=beir, every=1, patience=1),
    "mine": lambda beir: Mine(kind="mine", path=beir),
}


@pytest.fixture
def beir(tmp_path: Path) -> Path:
    numbers = range(9)
    documents = [{"_id": f"d{n}", "title": f"who asks {n}", "text": f"Words of text {n}. And more."} for n in numbers]
    splits = {"train": (0, 1, 2, 3), "dev": (4, 5), "test": (6, 7)}
    write_collection(
        tmp_path,
        documents,
        [{"_id": f"q{n}", "text": f"who asks {n}"} for n in numbers],
        {split: [(f"q{n}", f"d{n}") for n in some] for split, some in splits.items()},
    )
    lines = {
        "queries.tsv": [f"q{n}\twho asks {n}" for n in numbers],
        "collection.tsv": [f"d{n}\ttext {n}" for n in numbers],
        "triples.tsv": [f"q{n}\td{n}\td{n + 1}" for n in range(8)],
        "negatives.jsonl": [json.dumps({"query": f"q{n}", "negatives": [f"d{n + 1}"]}) for n in range(8)],
        "records.jsonl": [json.dumps({"query": f"who asks {n}", "positive": f"text {n}"}) for n in numbers],
        "log.txt": [f"who asks {n}" for n in numbers],
        "README.md": ["About it."],
    }
    for name, some in lines.items():
        (tmp_path / name).write_text("\n".join(some) + "\n", encoding="utf-8")
    return tmp_path


def learned(table: Table) -> object:
    """What a step makes of the table, as a value; a refusal is one too."""
    try:
        match table:
            case PairsTable() | PairRecords():
                return read_pairs(table).fingerprint
            case Judged() | TripleLines() | Records():
                return read_triples(table).fingerprint
            case EarlyStop():
                return Dev.read(table, seed=0)
            case Mine():
                return BeirData.read(table.path).digest(table.split)
            case _:
                return read_texts([table], seed=[0])  # type: ignore[list-item]
    except WrongUse as error:
        return str(error)


@pytest.mark.parametrize("name", TABLES)
def test_a_table_rests_on_the_files_that_change_what_is_learned_from_it(beir: Path, name: str) -> None:
    table = TABLES[name](beir)
    before, changed = learned(table), set()
    for file, (old, new) in CHANGES.items():
        text = (beir / file).read_text(encoding="utf-8")
        assert old in text
        (beir / file).write_text(text.replace(old, new), encoding="utf-8")
        changed |= {beir / file} if learned(table) != before else set()
        (beir / file).write_text(text, encoding="utf-8")
    said = set(table.rests_on())
    assert changed
    assert changed <= said
    assert said - changed <= {beir / "queries.jsonl"}, "only texts of queries that are left out by their ids, too"


def test_every_table_that_names_a_path_says_what_it_rests_on() -> None:
    def below(table: type[Table]) -> Iterator[type[Table]]:
        for each in table.__subclasses__():
            yield each
            yield from below(each)

    def names_paths(table: type[Table]) -> bool:
        brings = table.brings if issubclass(table, Step) else None
        return any("Path" in str(field.annotation) for key, field in table.model_fields.items() if key != brings)

    shipped = [each for each in below(Table) if each.__module__.startswith("bartizan_training")]
    naming = [each for each in shipped if names_paths(each) and each is not recipe.Recipe and not each.__subclasses__()]
    assert len(naming) >= 10
    assert not [each.__name__ for each in naming if each.rests_on is Table.rests_on]


def test_a_step_rests_on_what_its_tables_do_and_a_file_counts_for_each_step(tmp_path: Path) -> None:
    early = "early_stop = { data = 'dev', split = 'mine', every = 1, patience = 1 }"
    path = toy.recipe(tmp_path, f"{toy.CONTRASTIVE}\n{early}", toy.DISTIL)
    readers = readers_of(recipe.Recipe.load(path).step_files)
    assert {file.relative_to(tmp_path).as_posix(): sorted(steps) for file, steps in readers.items()} == {
        "data/corpus.jsonl": [1],
        "data/queries.jsonl": [1, 2],
        "data/qrels/train.tsv": [1, 2],
        "data/qrels/test.tsv": [1, 2],
        "dev/corpus.jsonl": [1],
        "dev/queries.jsonl": [1],
        "dev/qrels/mine.tsv": [1],
    }


@pytest.mark.parametrize("given", ["folder", "folder/tokenizer.json"])
def test_a_tokenizer_counts_by_its_file(tmp_path: Path, given: str) -> None:
    (tmp_path / "folder").mkdir()
    texts = (settings.Documents(kind="documents", path=tmp_path),)
    sizes = Size(family="bert", layers=1, hidden=8, heads=2, feed_forward=8, positions=512)
    table = Pretrain(kind="pretrain", model=sizes, texts=texts, tokenizer=tmp_path / given, steps=1, learning_rate=1e-3)
    (tmp_path / "folder/tokenizer.json").write_text("{}")
    assert list(table.rests_on()) == [tmp_path / "corpus.jsonl", tmp_path / "folder/tokenizer.json"]


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are read to know them again."""
    names: list[str] = []

    def noting(files: list[Path], on_piece: Callable[[], None]) -> str:
        names.extend(file.name for file in files)
        return digest_of_files(files, on_piece)

    monkeypatch.setattr("bartizan_training.data.contents.digest_of_files", noting)
    return names


def test_only_files_that_look_other_are_read_again(tmp_path: Path, read: list[str]) -> None:
    names = ("same", "touched", "edited", "grown", "gone", "new")
    files = {name: tmp_path / name for name in names}
    for name in names[:-1]:
        files[name].write_text("text")
        os.utime(files[name], ns=(5, 5))
    noted = contents_of(files.values(), {})
    assert read == list(names[:-1])
    assert noted[files["new"]] is None
    read.clear()
    files["touched"].touch()
    files["edited"].write_text("tixt")
    files["grown"].write_text("texts")
    os.utime(files["grown"], ns=(5, 5))
    files["gone"].unlink()
    files["new"].write_text("text")
    now = contents_of(files.values(), noted)
    assert read == ["touched", "edited", "grown", "new"]
    assert {name for name, file in files.items() if now[file] == noted[file]} == {"same", "touched"}
    assert now[files["gone"]] is None
    read.clear()
    assert contents_of(files.values(), now) == now
    assert read == []


def test_reading_much_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for size, shown in ((1, False), (2, True)):
        file = tmp_path / str(size)
        file.write_bytes(b"x" * (size * PIECE - 7))
        monkeypatch.setattr("bartizan_training.data.contents._SHOWN", PIECE)
        assert contents_of([file], {}) == contents_of([file], {})
        told = capsys.readouterr().err
        assert ("reads the data, to know it again (MiB): 2 done" in told) == shown
