"""The recall probe beside a slow oracle, on every kind of store, and the commands that use it."""

import json
from pathlib import Path

import numpy as np
import pytest

from bartizan_connector import MemoryBackend
from bartizan_connector.__main__ import main
from bartizan_connector.base.errors import WrongUse
from bartizan_connector.space.vectors import SparseVector, Vector, Vectors
from bartizan_connector.store.backend import Backend, Indexed, Store
from bartizan_connector.store.collection import Collection, Hit, Leg, Row
from bartizan_connector.store.embedded import EmbeddedBackend
from bartizan_connector.store.milvus import MilvusBackend
from bartizan_connector.store.profiles import profile_of
from bartizan_connector.store.recall import Exam, recall_of
from bartizan_connector.testing.rows import DENSE, FIELDS, SPACE, TERMS, row
from tests.exports import export_folder

LEG = Leg(name="dense", kind="dense", dim=8, space_id=SPACE)
COLLECTION = Collection(name="recall", legs=(LEG,), fields=FIELDS)
BOTH = Collection(name="both", legs=(DENSE, TERMS), fields=FIELDS)


def made(kind: str, folder: Path) -> Backend:
    if kind == "memory":
        return MemoryBackend()
    return EmbeddedBackend(folder / "i.bartizan") if kind == "embedded" else MilvusBackend(str(folder / "index.db"))


def filled(backend: Backend, count: int = 300) -> Store:
    """Some rows twice, some of several chunks."""
    values = np.random.default_rng(1).normal(size=(count, 8)).astype(np.float32)
    values[1::10] = values[::10]
    store = backend.open(COLLECTION)
    store.upsert([row(f"d{i // 2}", value, chunk=i % 2) for i, value in enumerate(values)])
    return store


@pytest.mark.parametrize("kind", ["memory", "embedded", "lite"])
def test_an_exact_search_has_a_recall_of_one_on_every_store(kind: str, tmp_path: Path) -> None:
    backend = made(kind, tmp_path)
    store = filled(backend)
    found = recall_of(store, "dense")
    assert (found.recall, found.queries, found.k, found.rows) == (1.0, 64, 10, 300)
    assert recall_of(store, "dense", queries=7, k=3, seed=5).queries == 7
    with pytest.raises(WrongUse, match="no leg 'other'"):
        recall_of(store, "other")
    backend.close()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.8])
def test_the_recall_is_what_comparing_one_by_one_says(share: float) -> None:
    store, dice = filled(MemoryBackend()), np.random.default_rng(3)
    rows = {(row.id, row.chunk): row for document in store.scan(vectors=True) for row in document.rows}
    expected: list[float] = []

    def forgetful(vectors: Vectors, k: int) -> list[list[Hit]]:
        answers = []
        for hits, query in zip(store.search("dense", vectors, 3 * k), vectors, strict=True):
            kept = [hit for hit in hits if dice.random() >= share][:k]
            scores = {key: float(np.dot(each.vectors["dense"].value, query.value)) for key, each in rows.items()}
            least = sorted(scores.values())[-k]
            expected.append(sum(scores[hit.id, hit.chunk] >= least - 1e-4 for hit in kept) / k)
            answers.append(kept)
        return answers

    measured = Exam.of(store, "dense").taken(forgetful).recall
    assert measured == pytest.approx(float(np.mean(np.minimum(expected, 1.0))))
    assert (measured < 1.0) == (share > 0)


@pytest.mark.parametrize("length", [1e-4, 1e4])
def test_the_recall_does_not_depend_on_how_long_the_vectors_are(length: float) -> None:
    values = np.random.default_rng(4).normal(size=(200, 8)).astype(np.float32)
    found = []
    for scale in (1.0, length):
        store = MemoryBackend().open(COLLECTION)
        store.upsert([row(f"d{i}", value * np.float32(scale)) for i, value in enumerate(values)])
        exam = Exam.of(store, "dense")
        assert exam.taken(lambda vectors, k: store.search("dense", vectors, k)).recall == 1.0  # noqa: B023
        found.append(exam.taken(lambda vectors, k: [hits[k:] for hits in store.search("dense", vectors, 2 * k)]).recall)  # noqa: B023
    assert found == [0.0, 0.0]


def test_rows_that_score_alike_all_count_as_right() -> None:
    store = MemoryBackend().open(COLLECTION)
    store.upsert([row(f"d{i:02}", np.ones(8)) for i in range(30)])
    backwards = Exam.of(store, "dense", k=5).taken(
        lambda vectors, k: [list(reversed(hits))[:k] for hits in store.search("dense", vectors, 4 * k)]
    )
    assert backwards.recall == 1.0


def test_a_sparse_leg_and_an_empty_collection_have_a_recall_too() -> None:
    store = MemoryBackend().open(BOTH)
    assert recall_of(store, "terms").recall == 1.0
    dice = np.random.default_rng(2)

    def both(i: int) -> Row:
        dense = row(f"d{i}", [1, 0, 0, 0])
        terms = np.sort(dice.choice(100, 5, replace=False)).astype(np.int32) if i else np.zeros(0, np.int32)
        sparse = SparseVector(terms, np.ones(len(terms), np.float32) + np.arange(len(terms), dtype=np.float32))
        vectors = {**dense.vectors, "terms": Vector(TERMS.space_id, sparse)}
        return Row(id=dense.id, vectors=vectors, version=1, hash="h")

    store.upsert([both(i) for i in range(40)])
    assert recall_of(store, "terms").recall == 1.0
    assert Exam.of(store, "terms").taken(lambda vectors, k: [[] for _ in range(len(vectors))]).recall == 0.0


# ---- what a store says of its indexes


def test_the_embedded_store_shows_what_it_has_derived(tmp_path: Path) -> None:
    backend = EmbeddedBackend(tmp_path / "i.bartizan", indexes={"dense": "auto"})
    store = filled(backend, 1_200)
    assert isinstance(store, Indexed)
    (facts,) = store.indexes()
    assert (facts.kind, facts.rows, facts.indexed, facts.recall) == ("exact", 1_200, 0, 1.0)
    heard: list[tuple[int, int]] = []
    facts = store.build("dense", profile_of("hnsw"), on_rows=lambda *counts: heard.append(counts))
    assert (facts.kind, facts.indexed, heard) == ("hnsw", 1_200, [(1_200, 1_200)])
    assert facts.recall is not None
    assert facts.recall > 0.9
    built = facts.sequence
    store.upsert([row("new", np.ones(8))])
    (facts,) = store.indexes()
    assert (facts.rows, facts.indexed, facts.sequence) == (1_201, 1_200, built)
    with pytest.raises(WrongUse, match="builds no index as ivf_flat asks"):
        store.build("dense", profile_of("ivf_flat"))
    with pytest.raises(WrongUse, match="no leg 'other'"):
        store.build("other")
    backend.close()


@pytest.mark.packaging
def test_milvus_lite_builds_what_it_has_and_refuses_what_it_would_only_pretend(tmp_path: Path) -> None:
    backend = MilvusBackend(str(tmp_path / "index.db"))
    store = filled(backend)
    assert isinstance(store, Indexed)
    for kind in ("hnsw", "ivf_flat", "ivf_sq8", "flat"):
        facts = store.build("dense", profile_of(kind))
        assert (facts.kind, facts.state, facts.note, facts.indexed) == (kind, "finished", "", 300)
        assert facts.recall is not None
        assert facts.recall >= 0.9
    for kind in ("ivf_pq", "gpu_cagra", "diskann", "scann"):
        with pytest.raises(WrongUse, match=rf"{kind} for the dense leg: Milvus Lite builds none .* it has flat, hnsw"):
            store.build("dense", profile_of(kind))
    backend.close()
    with pytest.raises(WrongUse, match="Milvus Lite builds none"):
        MilvusBackend(str(tmp_path / "index.db"), index="gpu_ivf_flat").open(COLLECTION)


# ---- the commands


@pytest.mark.parametrize("uri", ["index.bartizan", "index.db"])
def test_the_indexes_are_shown_built_and_probed_by_commands(
    uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bartizan.toml").write_text(
        f'collection.name = "docs"\nspaces.dense.document_tower = "{export_folder("bert", "fp32")}"\n'
        f'backend = {{ uri = "{uri}" }}\nsource.path = "corpus.jsonl"\n'
    )
    lines = [json.dumps({"_id": f"d{i}", "text": f"tower number {i}"}) for i in range(20)]
    (tmp_path / "corpus.jsonl").write_text("\n".join(lines))
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(words)
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    code, _, said = run("index", "show")
    assert code == 2
    assert "ingest documents first" in said
    assert run("ingest")[0] == 0
    kind = "exact" if uri == "index.bartizan" else "flat"
    for verb in ("show", "build"):
        (facts,) = json.loads(run("index", verb, "bartizan.toml", "--json")[1])
        assert (facts["leg"], facts["kind"], facts["state"], facts["rows"]) == ("dense", kind, "finished", 20)
    code, told, _ = run("index", "build", "--leg", "dense", "--kind", "hnsw")
    assert code == 0
    assert "of 20 rows covered" in told
    (probed,) = json.loads(run("index", "probe", "--json")[1])
    assert (probed["leg"], probed["recall"], probed["rows"]) == ("dense", 1.0, 20)
    assert "recall@10 1.000" in run("index", "probe", "--leg", "dense")[1]
    for words, error in ((("show", "--leg", "x"), "no leg 'x'"), (("build", "--kind", "hsnw"), "'hsnw' is not known")):
        code, _, said = run("index", *words)
        assert code == 2
        assert error in said
