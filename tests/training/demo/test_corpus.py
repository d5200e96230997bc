"""The demo's corpus is honest: made of what this Python says, judged by hand, held-out queries nowhere in training."""

import json
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest

from bartizan_connector.store.collection import MAX_ID_BYTES, MAX_STRING_BYTES
from bartizan_training.data.collections import BeirData
from bartizan_training.data.texts import read_texts
from bartizan_training.demo import corpus as corpora
from bartizan_training.demo import judgements, recipes, training_data
from bartizan_training.demo.corpus import Corpus
from bartizan_training.demo.training_data import normal
from bartizan_training.recipe import Recipe

SPLITS = ("train", "dev", "test")


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return corpora.build()


@pytest.fixture(scope="module")
def folder(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("demo")
    corpus.write(made / "corpus")
    training_data.write(corpus, made / "training-data")
    return made


def test_it_holds_what_everybody_knows_of_the_library(corpus: Corpus) -> None:
    documents = {document["_id"]: document for document in corpus.documents}
    assert 3500 < len(documents) == len(corpus.documents)
    assert "Delay execution" in documents["time.sleep"]["text"]
    assert documents["os.path.join"]["title"] == "os.path.join(a, *p)"
    assert documents["len"]["module"] == "builtins"
    expected = {"str.split": "method", "os.path.join": "function", "pathlib.Path": "class", "csv": "module"}
    assert {name: documents[name]["kind"] for name in expected} == expected
    assert documents["socket.socket.recv"]["module"] == "socket"
    assert set(Counter(document["kind"] for document in corpus.documents)) == {
        *("module", "class", "function", "method", "property")
    }


def test_one_thing_has_one_document_under_its_best_name(corpus: Corpus) -> None:
    names = {document["_id"] for document in corpus.documents}
    assert {"random.choice", "str.replace", "asyncio.sleep", "os.path.exists"} <= names
    assert not {"random.Random.choice", "bytearray.replace", "asyncio.tasks.sleep", "posixpath.exists"} & names


def test_every_document_can_be_stored_and_says_something(corpus: Corpus) -> None:
    for document in corpus.documents:
        assert list(document) == ["_id", "title", "text", "module", "kind"]
        assert document["title"].startswith(document["_id"])
        assert len(document["text"].split()) >= 3
        assert len(document["_id"].encode()) <= MAX_ID_BYTES
        assert max(len(value.encode()) for value in document.values()) <= MAX_STRING_BYTES


def test_it_is_the_same_each_time_and_names_nothing_of_this_machine(corpus: Corpus) -> None:
    assert corpora.build() == corpus
    written = json.dumps(corpus.documents)
    for trace in (" at 0x", sys.prefix, sys.base_prefix, str(Path.home())):
        assert trace not in written


def test_gathering_imports_nothing_here_and_prints_nothing(tmp_path: Path) -> None:
    probe = (
        "import sys; before = set(sys.modules)\n"
        "from bartizan_training.demo.corpus import gather; gather()\n"
        "print(sorted({'antigravity', 'this', 'smtplib', 'turtle', 'xmlrpc'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", probe], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")
    assert list(tmp_path.iterdir()) == []


def test_it_can_be_gathered_where_names_of_the_library_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('the wrong json')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTHONOPTIMIZE", "2")
    assert len(corpora.gather()) > 3500


def test_every_judged_name_is_in_the_corpus_but_for_the_newest(corpus: Corpus) -> None:
    newer = {"asyncio.TaskGroup"} if sys.version_info < (3, 12) else set()
    assert set(corpus.missing) <= newer


def test_queries_are_asked_once_and_judged_sparingly() -> None:
    queries = judgements.read()
    assert len({normal(query.text) for query in queries}) == len({query.id for query in queries}) == len(queries)
    for query in queries:
        assert query.text == query.text.strip()
        assert 1 <= len(set(query.relevant)) == len(query.relevant) <= 4


def test_the_splits_are_apart_and_the_held_out_one_is_large(corpus: Corpus, folder: Path) -> None:
    data = BeirData.read(folder / "corpus")
    judged = {split: set(data.qrels(split)) for split in SPLITS}
    assert sum(len(ids) for ids in judged.values()) == len(set.union(*judged.values())) == len(data.queries)
    assert len(judged["test"]) >= 100
    assert min(len(ids) for ids in judged.values()) >= 50
    assert {query.split for query in corpus.queries if query.id in judged["test"]} == {"test"}


def test_a_query_keeps_its_split_whatever_else_is_judged() -> None:
    known = {
        "pause the program for a while": "test",
        "is this year a leap year": "dev",
        "convert a time to another time zone": "train",
    }
    found = {text: judgements.Query(text=text, relevant=()).split for text in known}
    assert found == known


@pytest.mark.parametrize("from_scratch", [False, True])
def test_no_held_out_query_is_in_the_training_data(corpus: Corpus, folder: Path, from_scratch: bool) -> None:
    held_out = {normal(query.text) for query in corpus.queries if query.split != "train"}
    data = BeirData.read(folder / "training-data")
    (folder / "recipe.toml").write_text(recipes.text(seed=0, quick=False, from_scratch=from_scratch))
    recipe = Recipe.load(folder / "recipe.toml")
    distilled = read_texts(recipe.steps[1].texts, seed=(0, 2))  # type: ignore[union-attr]
    lines = (folder / "training-data" / "texts.txt").read_text(encoding="utf-8").split("\n")
    for texts in (data.queries.values(), lines, distilled):
        assert not held_out & {normal(text) for text in texts}
    assert data.splits == ("train",)
    train = {normal(query.text) for query in corpus.queries if query.split == "train"}
    assert train <= {normal(text) for text in data.queries.values()}


def test_a_derived_query_is_not_left_in_its_document(folder: Path) -> None:
    data = BeirData.read(folder / "training-data")
    kept = [
        (data.queries[query], data.corpus[document])
        for query, documents in data.qrels("train").items()
        for document in documents
        if document.endswith(training_data.REST)
    ]
    assert len(kept) > 3000
    assert sum(query in text for query, text in kept) < 0.02 * len(kept)  # some docstrings say a thing twice


def test_halves_are_the_first_sentence_and_the_rest() -> None:
    text = "Return the size of a\nfile. Raise OSError.\n\nNew in 3.2."
    assert training_data.halves(text) == ("Return the size of a file", "Raise OSError. New in 3.2.")
    assert training_data.halves("Pause.") == ("Pause", "")
    assert training_data.in_words({"_id": "http.server.BaseHTTPRequestHandler.send_error"}) == (
        "http server Base HTTPRequest Handler send error"
    )


def test_a_smaller_corpus_keeps_every_judged_document(corpus: Corpus) -> None:
    small = corpora.build(documents=900)
    assert len(small.documents) == 900
    judged = {name for query in small.queries for name in query.relevant}
    assert judged <= {document["_id"] for document in small.documents}
    assert small.queries == corpus.queries


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("from_scratch", [False, True])
def test_the_recipe_is_read_with_the_seed_that_was_asked_for(tmp_path: Path, quick: bool, from_scratch: bool) -> None:
    text = recipes.text(seed=7, quick=quick, from_scratch=from_scratch)
    (tmp_path / "recipe.toml").write_text(text, encoding="utf-8")
    recipe = Recipe.load(tmp_path / "recipe.toml")
    assert recipe.seed == 7
    assert [step.kind for step in recipe.steps][:2] == ["contrastive", "distil_query"]
    full = tomllib.loads(recipes.text(seed=7, quick=False, from_scratch=from_scratch))
    assert recipe.steps[0].steps == full["steps"][0]["steps"] // (10 if quick else 1)
