"""What a swap is judged by: nDCG beside another program's, recall beside exact search, limits, and what is forced."""

import json
import random
from pathlib import Path
from typing import Any

import ir_measures
import numpy as np
import pytest

from bartizan_connector.base.errors import Stop, WrongUse
from bartizan_connector.space.vectors import SparseVector, Vector
from bartizan_connector.store.backend import Store
from bartizan_connector.store.collection import Head, Hit, Row
from bartizan_connector.store.memory import MemoryBackend
from bartizan_connector.store.recall import Exam, recall_of
from bartizan_connector.stream.reembed import gates
from bartizan_connector.stream.reembed.gates import Gate, Limits, Searches, found, judged, require, same
from bartizan_connector.stream.reembed.heads import Difference
from bartizan_connector.stream.reembed.judged import Judged, agreement, ndcg
from bartizan_connector.testing.rows import COLLECTION, SPARSE, named


@pytest.mark.parametrize("seed", range(20))
def test_ndcg_is_what_ir_measures_says(seed: int) -> None:
    dice = random.Random(seed)
    documents = [f"d{n}" for n in range(30)]
    grades = {id: dice.randrange(-1, 4) for id in dice.sample(documents, dice.randrange(1, 20))}
    ranked = dice.sample(documents, dice.randrange(25))
    run = [ir_measures.ScoredDoc("q", id, -float(place)) for place, id in enumerate(ranked)]
    qrels = [ir_measures.Qrel("q", id, grade) for id, grade in grades.items()]
    values = list(ir_measures.iter_calc([ir_measures.nDCG @ 10], qrels, run))
    assert ndcg(grades, ranked) == pytest.approx(values[0].value if values else 0.0, abs=1e-9)


def beir(folder: Path, qrels: str = "query-id\tcorpus-id\tscore\nq1\ta\t2\nq2\tb\t1\nq2\tc\t0\n") -> Path:
    (folder / "qrels").mkdir(parents=True)
    (folder / "qrels" / "test.tsv").write_text(qrels)
    queries = [{"_id": f"q{n}", "text": f"query {n}"} for n in (1, 2, 3)]
    (folder / "queries.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in queries))
    return folder


def test_a_judged_set_is_read_as_it_lies(tmp_path: Path) -> None:
    data = Judged.read(beir(tmp_path / "data"))
    assert data.queries == {"q1": "query 1", "q2": "query 2"}
    assert data.grades == {"q1": {"a": 2}, "q2": {"b": 1, "c": 0}}
    assert data.ndcg(lambda text, k: ["a", "b"]) == pytest.approx((1 + 0.6309297535714575) / 2)
    with pytest.raises(WrongUse, match=r"dev\.tsv"):
        Judged.read(tmp_path / "data", "dev")
    with pytest.raises(WrongUse, match=r"test\.tsv:2: expected query, document and grade"):
        Judged.read(beir(tmp_path / "bad", "q\td\tscore\nq1 a 2\n"))
    with pytest.raises(WrongUse, match="judges none of its queries"):
        Judged.read(beir(tmp_path / "none", "q9\ta\t1\n"))


def test_agreement_is_the_share_of_the_best_that_both_find() -> None:
    assert agreement(["x"], lambda *_: ["a", "b", "c"], lambda *_: ["b", "c", "d"]) == pytest.approx(2 / 3)
    assert agreement(["x"], lambda *_: [], lambda *_: []) is None
    assert agreement([], lambda *_: ["a"], lambda *_: ["a"]) is None


def dense(count: int) -> Store:
    store = MemoryBackend().open(COLLECTION)
    values = np.random.default_rng(3).standard_normal((count, 4)).astype(np.float32)
    leg = COLLECTION.legs[0]
    store.upsert(
        [
            Row(id=f"d{n}", vectors={"dense": Vector(leg.space_id, value)}, version=1, hash="h")
            for n, value in enumerate(values)
        ]
    )
    return store


class Lossy:
    """A store whose index has lost every other document."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def search(self, leg: str, vectors: object, k: int) -> list[list[Hit]]:
        found = self._store.search(leg, vectors, 3 * k)  # type: ignore[arg-type]
        return [[hit for hit in hits if int(hit.id[1:]) % 2][:k] for hits in found]


class Late:
    """A store of which some documents go between a scan and a search."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def search(self, leg: str, vectors: object, k: int) -> list[list[Hit]]:
        self._store.delete([Head(id=f"d{n}", version=2) for n in range(0, 300, 3)])
        return self._store.search(leg, vectors, k)  # type: ignore[arg-type]


def test_what_is_deleted_while_the_recall_is_probed_is_no_loss_of_the_index() -> None:
    store = dense(300)
    assert recall_of(Late(store), "dense").recall == 1.0  # type: ignore[arg-type]
    assert store.count() == 200


def test_what_comes_while_the_recall_is_probed_is_as_good_as_what_it_displaces() -> None:
    store = dense(300)
    leg = COLLECTION.legs[0]

    def grown(vectors: Any, k: int) -> list[list[Hit]]:
        rows = [
            Row(id=f"n{n}-{m}", vectors={"dense": Vector(leg.space_id, 2 * each.value)}, version=1, hash="h")
            for n, each in enumerate(vectors)
            for m in range(3)
        ]
        store.upsert(rows)
        return store.search("dense", vectors, k)

    exam = Exam.of(store, "dense", queries=5)
    assert exam.taken(grown).recall == 1.0
    assert exam.taken(lambda vectors, k: [hits[5:] for hits in store.search("dense", vectors, k)]).recall < 1.0


def test_the_recall_probe_tells_a_whole_index_from_one_that_lost_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gates, "_STALE_SECONDS", 0.0)
    store = dense(300)
    assert recall_of(store, "dense").recall == 1.0
    lossy = recall_of(Lossy(store), "dense").recall  # type: ignore[arg-type]
    assert 0.3 < lossy < 0.7
    assert not found(Lossy(store), Limits()).passed  # type: ignore[arg-type]
    assert found(store, Limits()).passed
    assert recall_of(dense(3), "dense").recall == 1.0
    empty = MemoryBackend().open(named("empty"))
    assert recall_of(empty, "dense").queries == 0
    assert found(empty, Limits()).passed


def test_the_recall_probe_takes_sparse_legs() -> None:
    collection = COLLECTION.model_copy(update={"legs": (SPARSE,)})
    store = MemoryBackend().open(collection)
    dice = np.random.default_rng(1)
    rows = []
    for n in range(60):
        terms = np.sort(dice.choice(100, size=n % 5, replace=False)).astype(np.int32)
        value = SparseVector(terms, dice.random(len(terms)).astype(np.float32) + 0.1)
        rows.append(Row(id=f"d{n}", vectors={"sparse": Vector(SPARSE.space_id, value)}, version=1, hash="h"))
    store.upsert(rows)
    assert recall_of(store, "sparse").recall == 1.0


def test_a_leg_that_has_rows_and_nothing_to_ask_them_by_fails_and_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gates, "_STALE_SECONDS", 0.0)
    collection = COLLECTION.model_copy(update={"legs": (*COLLECTION.legs, SPARSE)})
    store = MemoryBackend().open(collection)
    assert found(store, Limits()).passed
    nothing = SparseVector(np.zeros(0, np.int32), np.zeros(0, np.float32))
    dense_leg, dice = COLLECTION.legs[0], np.random.default_rng(2)

    def made(id: str, sparse: SparseVector) -> Row:
        dense = Vector(dense_leg.space_id, dice.standard_normal(dense_leg.dim).astype(np.float32))
        vectors = {"dense": dense, "sparse": Vector(SPARSE.space_id, sparse)}
        return Row(id=id, vectors=vectors, version=1, hash="h")

    store.upsert([made(f"d{n}", nothing) for n in range(20)])
    gate = found(store, Limits())
    assert (gate.passed, gate.value) == (False, 1.0)
    assert "dense 1.000, sparse none of 20 rows" in gate.told
    with pytest.raises(Stop, match=r"recall: .*sparse none of 20 rows.*--force recall"):
        require([gate], [])
    store.upsert([made("with a term", SparseVector(np.array([7], np.int32), np.ones(1, np.float32)))])
    assert found(store, Limits()).passed


def test_what_no_pass_can_bring_over_is_told_with_the_way_out() -> None:
    unlike = Difference(documents=9, copied=9, deleted=0, unlike=2, examples=("a", "b"))
    assert unlike.lag == 0
    with pytest.raises(Stop, match=r"heads: .*2 ids of which something else .* higher _version.*--force heads"):
        require(list(same(unlike, Limits())), [])
    assert all(gate.passed for gate in same(unlike, Limits(behind=2)))


def test_each_gate_has_a_limit_and_is_forced_by_name(tmp_path: Path) -> None:
    behind = Difference(documents=9, copied=8, deleted=0, missing=1, behind=2, examples=("a", "b"))
    data = Judged.read(beir(tmp_path / "data"))
    searches = Searches(now=lambda *_: ["a", "b"], new=lambda *_: ["c"], judged=data, queries=["x"])
    measured = [*same(behind, Limits()), *judged(searches, Limits(agreement=0.5))]
    assert [(gate.name, gate.passed) for gate in measured] == [
        ("count", False),
        ("heads", False),
        ("ndcg", False),
        ("agreement", False),
    ]
    with pytest.raises(Stop, match=r"heads: 2 ids of.*--force heads --force ndcg --force agreement") as raised:
        require(measured, ["count"])
    assert "--force count" not in str(raised.value)
    assert require(measured, ["count", "heads", "ndcg", "agreement"]) == dict.fromkeys(
        ("count", "heads", "ndcg", "agreement"), False
    )
    loose = Limits(missing=1, behind=2, ndcg=1.0)
    assert all(require([*same(behind, loose), *judged(searches, loose)], []).values())
    told: list[Gate] = list(judged(None, Limits()))
    assert [gate.value for gate in told] == [None, None]
    assert all(gate.passed for gate in told)
