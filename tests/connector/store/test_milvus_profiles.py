"""Index profiles on the real Milvus server: each kind is built, measured and answers; what cannot be is replaced."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pymilvus import MilvusClient

from bartizan_connector import MemoryBackend
from bartizan_connector.__main__ import main
from bartizan_connector.base.errors import Stop, WrongUse
from bartizan_connector.space.vectors import Vectors
from bartizan_connector.store import filters
from bartizan_connector.store.backend import IndexFacts
from bartizan_connector.store.collection import Collection, Hit, Leg
from bartizan_connector.store.milvus import MilvusBackend
from bartizan_connector.store.milvus.store import MilvusStore
from bartizan_connector.store.profiles import Profile, profile_of
from bartizan_connector.store.recall import recall_of
from bartizan_connector.testing.rows import DENSE, FIELDS, found, queries, row
from tests.exports import export_folder
from tests.servers.milvus import MilvusServer

pytestmark = pytest.mark.server

ROWS, DIM, NEVER = 3_000, 32, 15.0
LEG = Leg(name="dense", kind="dense", dim=DIM, space_id=DENSE.space_id)
COLLECTION = Collection(name="profiles", legs=(LEG,), fields=FIELDS)


def vectors() -> np.ndarray:
    """In clusters, as texts are."""
    dice = np.random.default_rng(7)
    centres = dice.normal(size=(60, DIM))
    values = (centres[dice.integers(0, 60, ROWS)] + 0.5 * dice.normal(size=(ROWS, DIM))).astype(np.float32)
    return np.asarray(values / np.linalg.norm(values, axis=1, keepdims=True))


VALUES = vectors()


def opened(uri: str, index: str | Profile = "auto", **how: float) -> MilvusBackend:
    return MilvusBackend(uri, consistency="Strong", index=index, build_timeout=how.get("build_timeout", 60.0))


@pytest.fixture
def uri(milvus: MilvusServer) -> Iterator[str]:
    """Of a server where the collection stands, filled; each test has its own."""
    backend = opened(milvus.uri, "flat")
    backend.open(COLLECTION).upsert([row(f"d{i}", value, year=i) for i, value in enumerate(VALUES)])
    backend.close()
    yield milvus.uri
    backend = opened(milvus.uri)
    backend.drop(COLLECTION.name)
    backend.close()


@pytest.fixture
def store(uri: str) -> Iterator[MilvusStore]:
    backend = opened(uri)
    yield backend.open(COLLECTION, create=False)
    backend.close()


def settled(store: MilvusStore) -> IndexFacts:
    """What stands there once it is finished: a server may put rows together anew at any moment, and builds again."""
    deadline = time.monotonic() + 60
    while (facts := store.indexes()[0]).state != "finished":
        assert time.monotonic() < deadline, facts
        time.sleep(0.2)
    return facts


def assert_answers(store: MilvusStore) -> None:
    """What is nearest, and what passes a filter only."""
    oracle = MemoryBackend().open(COLLECTION)
    oracle.upsert([row(f"d{i}", value, year=i) for i, value in enumerate(VALUES)])
    asked, few = queries(*VALUES[:20]), filters.Compare("year", "<", 1_500)
    for filter in (None, few):
        got, wanted = store.search("dense", asked, 10, filter), oracle.search("dense", asked, 10, filter)
        shares = [len(set(found(a)) & set(found(b))) / 10 for a, b in zip(got, wanted, strict=True)]
        assert sum(shares) / len(shares) >= 0.9
        assert all(int(hit.fields["year"]) < 1_500 for hits in got for hit in hits) or filter is None


@pytest.mark.parametrize("kind", ["flat", "ivf_flat", "scann", "hnsw", "autoindex"])
def test_every_kind_that_needs_no_gpu_is_built_and_finds_what_is_near(store: MilvusStore, kind: str) -> None:
    heard: list[tuple[int, int]] = []
    facts = store.build("dense", profile_of(kind), on_rows=lambda *counts: heard.append(counts))
    assert (facts.kind, facts.note, heard[-1]) == (kind, "", (ROWS, ROWS))
    facts = settled(store)
    assert (facts.rows, facts.indexed) == (ROWS, ROWS)
    assert facts.recall is not None
    assert facts.recall >= 0.9
    assert recall_of(store, "dense").recall >= 0.9
    assert_answers(store)


CODES = [
    {"kind": "ivf_sq8"},
    {"kind": "ivf_pq"},
    {"kind": "gpu_ivf_pq"},
    {"kind": "scann", "with_raw_data": False},
]


def test_a_kind_that_keeps_no_vectors_is_refused_on_a_server_that_deletes_what_it_reads_under_it(uri: str) -> None:
    backend = opened(uri)
    store = backend.open(COLLECTION, create=False)
    before = settled(store)
    for each in CODES:
        with pytest.raises(WrongUse, match=r"keeps no vectors, .* \(v2\.3\.5.*\) deletes .* needs 2\.4 or newer"):
            store.build("dense", profile_of(each))
        other = opened(uri, profile_of(each))
        for collection in (COLLECTION, COLLECTION.model_copy(update={"name": "profiles_codes"})):
            with pytest.raises(WrongUse, match="keeps no vectors"):
                other.open(collection)
        other.close()
    assert settled(store) == before
    assert "profiles_codes" not in backend.collections()
    backend.close()


def test_vectors_are_not_read_under_such_an_index_that_somebody_else_has_built(uri: str) -> None:
    backend = opened(uri)
    store = backend.open(COLLECTION, create=False)
    client = MilvusClient(uri)
    client.release_collection(store.physical_name)
    client.drop_index(store.physical_name, "dense")
    order = MilvusClient.prepare_index_params("dense", index_type="IVF_SQ8", metric_type="IP", params={"nlist": 128})
    client.create_index(store.physical_name, order)
    client.load_collection(store.physical_name)
    client.close()
    (remark,) = backend.open(COLLECTION, create=False).remarks
    assert "has a IVF_SQ8 index" in remark
    store.indexes()
    for read in (
        lambda: store.get(["d1"], vectors=True),
        lambda: list(store.scan(vectors=True)),
        lambda: recall_of(store, "dense"),
    ):
        with pytest.raises(Stop, match="bartizan index build --leg dense --kind hnsw makes one that keeps them"):
            read()
    assert store.get(["d1"])["d1"].rows[0].fields["year"] == 1
    assert_answers(store)
    assert store.build("dense", profile_of("hnsw")).kind == "hnsw"
    assert len(list(store.scan(vectors=True))) == ROWS, "nothing was lost"
    backend.close()


@pytest.mark.parametrize(
    ("profile", "why"),
    [
        ("gpu_cagra", "the server refused it"),
        ("gpu_brute_force", "the server refused it"),
        ("gpu_ivf_flat", "no more came in 15 s"),
        ("diskann", "no more came in 15 s"),
    ],
)
def test_what_the_server_cannot_build_is_replaced_within_the_time_limit_and_said(
    uri: str, profile: str, why: str
) -> None:
    backend = opened(uri, profile, build_timeout=NEVER)
    store = backend.open(COLLECTION, create=False)
    begun = time.monotonic()
    store.reindex()
    assert time.monotonic() - begun < 180
    facts = settled(store)
    name = profile.upper()
    assert facts.note.startswith(f"a {name} index was asked for, but ")
    assert why in facts.note
    assert facts.note.endswith("a HNSW index is there instead")
    assert (facts.kind, facts.state) == ("hnsw", "finished")
    assert facts.recall is not None
    assert facts.recall >= 0.9
    (remark,) = store.remarks
    assert facts.note in remark
    backend.close()
    again = opened(uri, profile)
    store = again.open(COLLECTION, create=False)
    assert list(store.remarks) == [remark], "who opens it later is told the same"
    assert_answers(store)
    again.close()


def test_a_search_that_misses_rows_is_made_broader_for_everybody(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """How much a narrow search misses of so few rows is chance, so the first examined one forgets half."""
    searched, narrow_ones = MilvusStore._now_searched, [True]

    def forgetful(store: MilvusStore, leg: Leg, vectors: Vectors, k: int) -> list[list[Hit]]:
        hits = searched(store, leg, vectors, k)
        return [each[: k // 2] for each in hits] if narrow_ones and narrow_ones.pop() else hits

    monkeypatch.setattr(MilvusStore, "_now_searched", forgetful)
    narrow = profile_of({"kind": "ivf_flat", "nlist": 1024, "search": {"nprobe": 1}})
    backend = opened(uri, narrow)
    store = backend.open(COLLECTION, create=False)
    facts = store.build("dense")
    assert facts.note == ""
    assert facts.recall is not None
    assert facts.recall >= 0.9
    assert int(facts.search["nprobe"]) > 14, "what k = 10 alone makes of it"
    backend.close()
    other = opened(uri, narrow)
    (theirs,) = other.open(COLLECTION, create=False).indexes()
    assert theirs.search == facts.search
    other.close()


def test_an_index_that_finds_too_little_at_its_broadest_is_replaced(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No kind that this server may build is bad enough, so its searches forget half while it stands there."""
    searched = MilvusStore._now_searched

    def forgetful(store: MilvusStore, leg: Leg, vectors: Vectors, k: int) -> list[list[Hit]]:
        hits = searched(store, leg, vectors, k)
        is_hnsw = store.indexes()[0].kind == "hnsw"
        return hits if is_hnsw else [each[: k // 2] for each in hits]

    monkeypatch.setattr(MilvusStore, "_now_searched", forgetful)
    backend = opened(uri, "ivf_flat")
    store = backend.open(COLLECTION, create=False)
    facts = store.build("dense")
    assert (facts.kind, settled(store).kind) == ("hnsw", "hnsw")
    assert "a IVF_FLAT index was asked for, but it finds 50% of the nearest 10 rows at its broadest" in facts.note
    assert facts.note.endswith("a HNSW index is there instead")
    assert facts.recall is not None
    assert facts.recall >= 0.9
    backend.close()


def test_parameters_are_compared_with_what_stands_there(uri: str) -> None:
    first = opened(uri)
    first.open(COLLECTION, create=False).build("dense", profile_of("hnsw"))
    first.close()
    backend = opened(uri, profile_of({"kind": "hnsw", "M": 24, "search": {"ef": 300}}))
    store = backend.open(COLLECTION, create=False)
    (remark,) = store.remarks
    assert "has a HNSW index with M = 16" in remark
    assert "asks for M = 24 here; bartizan index build" in remark
    facts = store.build("dense")
    assert (facts.build, facts.search) == ({"M": "24", "efConstruction": "200"}, {"ef": 300})
    assert list(store.remarks) == []
    with pytest.raises(WrongUse, match="m = 5 does not divide the dimension, 32"):
        store.build("dense", profile_of({"kind": "ivf_pq", "m": 5}))
    with pytest.raises(WrongUse, match="no leg 'dens'"):
        store.build("dens")
    backend.close()


def test_a_new_collection_gets_what_every_server_builds_where_this_one_refuses(milvus: MilvusServer) -> None:
    backend = opened(milvus.uri, "gpu_cagra")
    store = backend.open(COLLECTION.model_copy(update={"name": "profiles_new"}))
    (remark,) = store.remarks
    assert "a GPU_CAGRA index was asked for, but the server refused it" in remark
    assert "a HNSW index is there instead" in remark
    store.upsert([row("a", VALUES[0])])
    (hits,) = store.search("dense", queries(VALUES[0]), 1)
    assert found(hits) == [("a", 0)]
    backend.drop("profiles_new")
    backend.close()


def test_the_commands_show_build_and_probe_on_a_server(
    milvus: MilvusServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bartizan.toml").write_text(
        f'collection.name = "profiles_told"\nspaces.dense.document_tower = "{export_folder("bert", "fp32")}"\n'
        f'backend = {{ uri = "{milvus.uri}", consistency = "Strong" }}\nsource.path = "corpus.jsonl"\n'
    )
    (tmp_path / "corpus.jsonl").write_text(
        "\n".join(json.dumps({"_id": f"d{i}", "text": f"tower number {i}"}) for i in range(20))
    )
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(words)
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    assert run("ingest")[0] == 0
    (facts,) = json.loads(run("index", "show", "--json")[1])
    assert (facts["leg"], facts["kind"], facts["rows"]) == ("dense", "hnsw", 20)
    code, told, said = run("index", "build", "--kind", "ivf_flat")
    assert (code, "of 20 rows covered" in told) == (0, True), said
    code, _, said = run("index", "build", "--kind", "ivf_sq8")
    assert (code, "it needs 2.4 or newer" in " ".join(said.split())) == (2, True), said
    (probed,) = json.loads(run("index", "probe", "--json")[1])
    assert (probed["recall"], probed["rows"]) == (1.0, 20)
    backend = opened(milvus.uri)
    backend.drop("profiles_told")
    backend.close()
