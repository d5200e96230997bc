"""Triples out of every form they come in; a bad row names file and line; a test query is never among them."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from pydantic import TypeAdapter

from bartizan_connector.base.errors import WrongUse
from bartizan_training.data.digests import digests_of, pair_digests
from bartizan_training.data.scores import ScoreTable, distinct_pairs
from bartizan_training.data.triple_rows import Triples
from bartizan_training.data.triple_tables import TripleSource
from bartizan_training.data.triples import identity_of, read_triples

CORPUS = {f"d{i}": f"document {i}" for i in range(6)}
QUERIES = {"q1": "first", "q2": "second", "q3": "Third  query", "q4": "third query", "q5": "fifth"}
QRELS = {
    "train": [("q1", "d1", 1), ("q1", "d2", 1), ("q2", "d3", 2), ("q2", "d4", 0), ("q3", "d5", 1), ("q5", "d1", 1)],
    "test": [("q4", "d5", 1), ("q5", "d2", 1)],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "corpus.jsonl", *(json.dumps({"_id": id, "text": text}) for id, text in CORPUS.items()))
    write(tmp_path / "queries.jsonl", *(json.dumps({"_id": id, "text": text}) for id, text in QUERIES.items()))
    (tmp_path / "qrels").mkdir()
    for split, rows in QRELS.items():
        lines = (f"{query}\t{document}\t{grade}" for query, document, grade in rows)
        write(tmp_path / f"qrels/{split}.tsv", "query-id\tcorpus-id\tscore", *lines)
    return tmp_path


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def read(**keys: object) -> Triples:
    return read_triples(TypeAdapter(TripleSource).validate_python(keys))


def texts(triples: Triples) -> list[tuple[str, str, str]]:
    rows = zip(triples.query, triples.positive, triples.negative, strict=True)
    return [(triples.queries[q], triples.documents[p], triples.documents[n]) for q, p, n in rows]


def test_judged_queries_stand_beside_their_hard_negatives_first(folder: Path) -> None:
    negatives = write(folder / "n.jsonl", json.dumps({"query": "q1", "negatives": ["d2", "d5", "d0", "d4"]}))
    made = read(kind="judged", path=folder, negatives=negatives, negatives_per_query=2)
    first = [row for row in texts(made) if row[0] == "first"]
    assert first == [
        ("first", CORPUS[positive], CORPUS[negative]) for positive in ("d1", "d2") for negative in ("d5", "d0")
    ], "d2 is a positive"
    assert made.scores is None


def test_random_negatives_are_never_positives_and_the_same_every_time(folder: Path) -> None:
    made, again = (read(kind="judged", path=folder, negatives_per_query=4) for _ in range(2))
    other = read(kind="judged", path=folder, negatives_per_query=4, seed=1)
    assert texts(made) == texts(again) != texts(other)
    assert made.fingerprint == again.fingerprint != other.fingerprint
    good = {"first": {CORPUS["d1"], CORPUS["d2"]}, "second": {CORPUS["d3"]}}
    for query, positive, negative in texts(made):
        assert positive in good[query]
        assert negative not in good[query]
    assert len(set(texts(made))) == len(made) == 2 * 4 + 4


def test_a_test_query_is_left_out_by_its_id_and_by_its_text(folder: Path) -> None:
    made = read(kind="judged", path=folder)
    assert set(made.queries) == {"first", "second"}, "q3 is the text of q4, q5 is judged in both splits"
    assert made.left_out == 2
    write(folder / "triples.tsv", "q1\td1\td2", "q5\td1\td2", "q3\td5\td2")
    by_id = read(kind="tsv", path=folder)
    assert texts(by_id) == [("first", CORPUS["d1"], CORPUS["d2"])]
    as_texts = write(folder / "x.tsv", "third QUERY\tgood\tbad", "another\tgood\tbad")
    assert read(kind="tsv", file=as_texts, held_out=folder).queries == ("another",)
    records = write(folder / "r.jsonl", json.dumps({"query": "fifth", "positive": "a", "negative": "b"}))
    with pytest.raises(WrongUse, match=r"r.jsonl has no triple to learn from; 1 were left out: .*for testing"):
        read(kind="records", files=[records], held_out=folder)


def test_training_on_the_test_split_itself_is_refused(folder: Path) -> None:
    with pytest.raises(WrongUse, match="no triple to learn from; 2 were left out"):
        read(kind="judged", path=folder, split="test")


@pytest.mark.parametrize("separator", ["\t", " "])
def test_published_scores_are_read_as_they_are(folder: Path, separator: str) -> None:
    rows = [("12.5", "-3.25", "q1", "d1", "d4"), ("9.0", "8.5", "q2", "d3", "d0")]
    file = write(folder / "scores.tsv", *(separator.join(row) for row in rows))
    made = read(kind="tsv", file=file, path=folder)
    assert texts(made) == [("first", CORPUS["d1"], CORPUS["d4"]), ("second", CORPUS["d3"], CORPUS["d0"])]
    assert made.scores is not None
    assert [side.tolist() for side in made.scores] == [[12.5, 9.0], [-3.25, 8.5]]


def test_ids_of_ms_marco_are_looked_up_in_its_two_files(tmp_path: Path) -> None:
    queries = write(tmp_path / "queries.tsv", "7\twhat is it", "8\twhere is it")
    collection = write(tmp_path / "collection.tsv", "100\tthis it is", "101\tthere\tit is")
    file = write(tmp_path / "scores.tsv", "3.5\t1.5\t7\t100\t101")
    made = read(kind="tsv", file=file, queries=queries, collection=collection)
    assert texts(made) == [("what is it", "this it is", "there\tit is")]
    plain = write(tmp_path / "triples.tsv", "7\t100\t101", "8\t101\t100")
    assert read(kind="tsv", file=plain, queries=queries, collection=collection).scores is None
    assert len(read(kind="tsv", file=plain, queries=queries, collection=collection, limit=1)) == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1.0\t2.0\tq1\td1", r"scores.tsv:2: expected pos_score neg_score qid pos_pid neg_pid, got '1.0"),
        ("1.0\t\tq1\td1\td2", r"scores.tsv:2: expected two scores in front, got '1.0' and ''"),
        ("1.0\tnan\tq1\td1\td2", r"scores.tsv:2: a score is missing or no number: '1.0' and 'nan'"),
        ("1.0\t2.0\tq9\td1\td2", r"scores.tsv:2: no query has the id 'q9'"),
        ("1.0\t2.0\tq1\td1\td99", r"scores.tsv:2: no document has the id 'd99'"),
    ],
)
def test_a_bad_line_is_named(folder: Path, line: str, message: str) -> None:
    file = write(folder / "scores.tsv", "1.0\t2.0\tq1\td1\td2", line)
    with pytest.raises(WrongUse, match=message):
        read(kind="tsv", file=file, path=folder)


def test_lines_of_another_form_and_scores_without_texts_are_refused(folder: Path) -> None:
    with pytest.raises(WrongUse, match=r"x.tsv:1: expected three fields .* or five"):
        read(kind="tsv", file=write(folder / "x.tsv", "a\tb"))
    with pytest.raises(WrongUse, match=r"y.tsv:1: its ids need texts: give path, or queries and collection"):
        read(kind="tsv", file=write(folder / "y.tsv", "1.0\t2.0\tq1\td1\td2"))
    with pytest.raises(WrongUse, match=r"z.tsv:1: a text is empty"):
        read(kind="tsv", file=write(folder / "z.tsv", "a\tb\t "))
    (folder / "latin.tsv").write_bytes(b"a\tb\tc\n\xe4\tb\tc\n")
    with pytest.raises(WrongUse, match=r"latin.tsv:2: not UTF-8"):
        read(kind="tsv", file=folder / "latin.tsv")
    with pytest.raises(WrongUse, match=r"bad.tsv:2: expected query id ⇥ text"):
        read(kind="tsv", file=folder / "x.tsv", queries=write(folder / "bad.tsv", "1\ta", "2"), collection=folder)


RECORDS = [
    {"anchor": "one", "positive": "p1", "negative": "n1"},
    {"anchor": "two", "positive": "p2", "negative": "n2"},
]


@pytest.mark.parametrize("suffix", ["jsonl", "parquet", "arrow", "arrow-file"])
def test_records_come_from_json_lines_parquet_and_arrow(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"records.{suffix.split('-')[0]}"
    save(path, RECORDS, as_file=suffix == "arrow-file")
    made = read(kind="records", files=[path], query="anchor")
    assert texts(made) == [("one", "p1", "n1"), ("two", "p2", "n2")]
    assert len(read(kind="records", files=[path, path], query="anchor", limit=3)) == 3


def save(path: Path, records: list[dict[str, str]], *, as_file: bool) -> None:
    if path.suffix == ".jsonl":
        write(path, *map(json.dumps, records))
        return
    table = pa.Table.from_pylist(records)
    if path.suffix == ".parquet":
        parquet.write_table(table, path)
        return
    opened = pa.ipc.new_file if as_file else pa.ipc.new_stream
    with pa.OSFile(str(path), "wb") as sink, opened(sink, table.schema) as writer:
        writer.write_table(table)


def test_a_record_may_have_many_negatives_or_none(tmp_path: Path) -> None:
    rows = [
        {"query": "one", "positive": "p1", "negatives": ["n1", "n2"]},
        {"query": "two", "positive": "p2"},
        {"query": "three", "positive": "p3"},
    ]
    made = read(kind="records", files=[write(tmp_path / "r.jsonl", *map(json.dumps, rows))], negatives_per_query=2)
    assert texts(made)[:2] == [("one", "p1", "n1"), ("one", "p1", "n2")]
    assert {row for row in texts(made) if row[0] == "two"} == {("two", "p2", "p1"), ("two", "p2", "p3")}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"positive": "p"}, r"r.jsonl:2: expected a text as 'query'; it has positive"),
        ({"query": 3, "positive": "p"}, r"r.jsonl:2: expected a text as 'query'; got '3'"),
        ({"query": "q", "positive": " "}, r"r.jsonl:2: expected a text as 'positive'"),
        (
            {"query": "q", "positive": "p", "negative": 4},
            r"r.jsonl:2: expected a text or a list of texts as 'negative'",
        ),
        (["q"], r"r.jsonl:2: expected a JSON object, got list"),
    ],
)
def test_a_bad_record_is_named(tmp_path: Path, record: object, message: str) -> None:
    good = {"query": "one", "positive": "p1", "negative": "n1"}
    with pytest.raises(WrongUse, match=message):
        read(kind="records", files=[write(tmp_path / "r.jsonl", json.dumps(good), json.dumps(record))])


def test_a_file_of_another_form_or_a_damaged_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match=r"expected a file that ends in .jsonl, .parquet, .arrow"):
        read(kind="records", files=[tmp_path / "r.csv"])
    for name in ("r.parquet", "r.arrow"):
        (tmp_path / name).write_bytes(b"nothing of the kind")
        with pytest.raises(WrongUse, match=f"cannot read .*{name} as"):
            read(kind="records", files=[tmp_path / name])


def test_the_identity_changes_with_what_is_read(folder: Path) -> None:
    table = TypeAdapter(TripleSource).validate_python({"kind": "judged", "path": folder})
    before = identity_of(table)
    write(folder / "qrels/train.tsv", "query-id\tcorpus-id\tscore", "q1\td1\t1")
    assert identity_of(table) != before


def test_a_score_is_found_by_its_two_texts_and_a_missing_one_is_refused(tmp_path: Path) -> None:
    queries, documents = ("a", "b"), ("x", "y", "z")
    query, document = distinct_pairs(np.array([1, 0, 1, 0]), np.array([2, 0, 2, 1]))
    assert list(zip(query, document, strict=True)) == [(0, 0), (0, 1), (1, 2)]
    pairs = pair_digests(digests_of(queries)[query], digests_of(documents)[document])
    ScoreTable.of(pairs, np.array([0.5, 1.5, 2.5], dtype=np.float32)).write(tmp_path)
    table = ScoreTable.read(tmp_path)
    found = table.find(("b", "a"), ("z", "y"), np.array([0, 1]), np.array([0, 1]))
    assert found.tolist() == [2.5, 1.5]
    with pytest.raises(WrongUse, match=r"1 of 2 pairs have no score, the first: query 'b' and document 'y'"):
        table.find(queries, documents, np.array([1, 1]), np.array([2, 1]))


def test_a_pairs_digest_knows_which_text_is_which() -> None:
    digests = digests_of([f"text {i}" for i in range(300)])
    first, second = (part.reshape(-1) for part in np.meshgrid(digests, digests))
    assert len(np.unique(pair_digests(first, second))) == 300 * 300


def test_a_test_split_that_names_an_unknown_query_is_refused(folder: Path) -> None:
    write(folder / "qrels/test.tsv", "query-id\tcorpus-id\tscore", "q99\td1\t1")
    with pytest.raises(WrongUse, match=r"test.tsv judges query 'q99', which .*queries.jsonl does not have"):
        read(kind="judged", path=folder)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"kind": "tsv"}, "give file, or path to a BEIR folder"),
        ({"kind": "tsv", "file": "x", "queries": "q"}, "queries and collection belong together"),
        ({"kind": "tsv", "path": "x", "queries": "q", "collection": "c"}, "give either path or queries"),
    ],
)
def test_a_table_that_cannot_mean_anything_is_refused(keys: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TypeAdapter(TripleSource).validate_python(keys)
