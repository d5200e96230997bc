"""Index profiles: every documented limit is told before a server is asked, and defaults suit the number of rows."""

import re
from pathlib import Path

import numpy as np
import pytest

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.base.tables import check
from bartizan_connector.store.collection import Leg
from bartizan_connector.store.kinds import KINDS
from bartizan_connector.store.profiles import (
    Profile,
    build_parameters,
    profile_of,
    require_fit,
    search_parameters,
    sent,
)
from bartizan_connector.store.settings import BackendSettings

DENSE = Leg(name="dense", kind="dense", dim=384, space_id="s")
TERMS = Leg(name="terms", kind="sparse", dim=30_522, space_id="s")
SERVER = "http://milvus:19530"


def test_there_is_a_profile_for_every_kind_of_the_documentation() -> None:
    assert set(KINDS) == {
        "flat", "hnsw", "ivf_flat", "ivf_sq8", "ivf_pq", "scann", "diskann", "autoindex", "sparse_inverted_index",
        "sparse_wand", "gpu_cagra", "gpu_ivf_flat", "gpu_ivf_pq", "gpu_brute_force",
    }  # fmt: skip
    assert {kind.name.lower() for kind in KINDS.values()} == set(KINDS)


@pytest.mark.parametrize(
    ("kind", "key", "right", "wrong"),
    [
        ("hnsw", "M", [2, 2048], [1, 2049, 2.5, True, "16"]),
        ("hnsw", "efConstruction", [1, 2**31 - 1], [0, 2**31]),
        ("hnsw", "search.ef", [1, 32_768], [0, 32_769]),
        ("ivf_flat", "nlist", [1, 65_536], [0, 65_537]),
        ("ivf_flat", "search.nprobe", [1, 65_536], [0, 65_537]),
        ("ivf_sq8", "nlist", [1, 65_536], [0, 65_537]),
        ("ivf_pq", "nbits", [1, 16], [0, 17]),
        ("ivf_pq", "m", [1, 384], [0]),
        ("scann", "with_raw_data", [True, False], ["true", 1]),
        ("scann", "search.reorder_k", [1], [0]),
        ("diskann", "search.search_list", [1, 65_535], [0, 65_536]),
        ("gpu_cagra", "build_algo", ["IVF_PQ", "NN_DESCENT"], ["AUTO", 1]),
        ("gpu_cagra", "cache_dataset_on_device", [True], ["true"]),
        ("gpu_cagra", "search.team_size", [0, 2, 4, 8, 16, 32], [1, 64, True]),
        ("gpu_ivf_flat", "nlist", [1, 65_536], [0, 65_537]),
        ("gpu_ivf_pq", "nbits", [4, 8], [3, 9, 16]),
        ("gpu_ivf_pq", "m", [0, 96], [-1]),
        ("sparse_inverted_index", "inverted_index_algo", ["DAAT_MAXSCORE", "SINDI"], ["BMP"]),
        ("sparse_inverted_index", "search.drop_ratio_search", [0, 0.99], [1, -0.1]),
    ],
)
def test_a_parameter_keeps_to_its_documented_limits(
    kind: str, key: str, right: list[object], wrong: list[object]
) -> None:
    *search, name = key.split(".")
    table = (
        (lambda value: {"kind": kind, "search": {name: value}})
        if search
        else (lambda value: {"kind": kind, name: value})
    )
    for value in right:
        profile_of(table(value))
    for value in wrong:
        with pytest.raises(WrongUse, match=rf"{name} of {kind} must be .*{re.escape(repr(value))} came"):
            profile_of(table(value))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("hsnw", "'hsnw' is not known; there are auto, flat, hnsw"),
        ({}, "the kind is missing"),
        ({"kind": 3}, "the kind must be a text"),
        (7, "must be the kind of an index"),
        ({"kind": "hnsw", "nlist": 5}, "nlist is no parameter of hnsw; there are: M, efConstruction; and in search"),
        ({"kind": "hnsw", "search": {"nprobe": 5}}, r"search\.nprobe is no parameter of hnsw"),
        ({"kind": "hnsw", "search": 5}, "search must be a table"),
        ({"kind": "auto", "M": 5}, "chooses for itself"),
        ({"kind": "gpu_cagra", "graph_degree": 64, "intermediate_graph_degree": 64}, "must be below intermediate"),
        ({"kind": "ivf_flat", "nlist": 64, "search": {"nprobe": 65}}, "must be at most nlist = 64"),
    ],
)  # fmt: skip
def test_what_is_no_profile_is_told(given: object, told: str) -> None:
    with pytest.raises(WrongUse, match=told):
        profile_of(given)


def test_what_a_leg_cannot_have_is_told() -> None:
    for profile, leg, told in (
        (profile_of("hnsw"), TERMS, "that kind is for dense legs, and this is a sparse one; there are sparse_inverted"),
        (profile_of("sparse_wand"), DENSE, "that kind is for sparse legs"),
        (
            profile_of({"kind": "ivf_pq", "m": 100}),
            DENSE,
            "m = 100 does not divide the dimension, 384; these do: 1, 2, 3",
        ),
        (profile_of({"kind": "gpu_ivf_pq", "m": 5}), DENSE, "m = 5 does not divide"),
        (profile_of("hnsw"), DENSE.model_copy(update={"dim": 32_769}), "at most 32,768 dimensions"),
    ):
        with pytest.raises(WrongUse, match=told):
            require_fit(profile, leg)
    require_fit(profile_of({"kind": "gpu_ivf_pq", "m": 0}), DENSE)
    require_fit(Profile(), TERMS)


def test_defaults_suit_the_number_of_rows_and_what_is_given_stays() -> None:
    lists = [build_parameters(profile_of("ivf_flat"), DENSE, rows)["nlist"] for rows in (0, 1_000, 100_000, 10**9)]
    assert lists == [128, 128, 1265, round(4 * (2**30 // (4 * 384)) ** 0.5)], "a segment has no more rows than it holds"
    assert build_parameters(profile_of({"kind": "ivf_pq", "nlist": 7}), DENSE, 5) == {"nlist": 7, "m": 192, "nbits": 8}
    assert build_parameters(profile_of("hnsw"), DENSE, 5) == {"M": 16, "efConstruction": 200}
    prime = DENSE.model_copy(update={"dim": 7})
    assert build_parameters(profile_of("ivf_pq"), prime, 5)["m"] == 1


@pytest.mark.parametrize("degree", [1, 16, 32, 64, 100])
def test_a_graph_of_the_gpu_is_always_cut_out_of_a_broader_one(degree: int) -> None:
    for given in ({"graph_degree": degree}, {"intermediate_graph_degree": degree + 1}):
        built = build_parameters(profile_of({"kind": "gpu_cagra", **given}), DENSE, 10**6)
        assert built["graph_degree"] < built["intermediate_graph_degree"]  # type: ignore[operator]
        assert sent(built)["adapt_for_cpu"] == "false"


@pytest.mark.parametrize("k", [1, 10, 100, 1024])
def test_a_search_is_as_broad_as_k_needs_and_keeps_within_its_limits(k: int) -> None:
    dice = np.random.default_rng(k)
    for name, kind in KINDS.items():
        built = {"nlist": str(int(dice.integers(1, 2_000)))} if "nlist" in kind.build else {}
        found = search_parameters(kind, {}, built, k, rows=3_000)
        if kind.breadth and kind.breadth != "nprobe":
            assert int(found[kind.breadth]) >= k, name
        if kind.breadth == "nprobe":
            probes, lists = int(found["nprobe"]), int(built["nlist"])
            assert 1 <= probes <= lists
            assert probes == lists or probes * 3_000 / lists >= 4 * k, "the lists that are looked at hold enough rows"
        for factor in (2, 8, 64):
            broader = search_parameters(kind, {}, built, k, rows=3_000, factor=factor)
            assert all(broader[key] >= value for key, value in found.items()), name  # type: ignore[operator]
            assert not any(limit.fault(broader[key]) for key, limit in kind.search.items() if key in broader), name
            found = broader


def test_what_is_asked_for_is_sent_and_raised_where_k_is_more() -> None:
    assert search_parameters(KINDS["hnsw"], {"ef": 300}, {}, 10) == {"ef": 300}
    assert search_parameters(KINDS["hnsw"], {"ef": 30}, {}, 200) == {"ef": 200}
    assert search_parameters(KINDS["hnsw"], {}, {}, 10) == {"ef": 128}
    assert search_parameters(KINDS["gpu_cagra"], {"itopk_size": 33, "search_width": 2}, {}, 10) == {
        "itopk_size": 64,
        "search_width": 2,
    }
    assert search_parameters(KINDS["gpu_cagra"], {}, {"adapt_for_cpu": "true"}, 500)["ef"] == 1000
    assert search_parameters(KINDS["flat"], {}, {}, 10) == search_parameters(None, {}, {}, 10) == {}


# ---- the configuration


def test_a_profile_is_a_kind_or_a_table_for_all_dense_legs_or_for_one() -> None:
    table = {"kind": "hnsw", "M": 30, "efConstruction": 360, "search": {"ef": 100}}
    settings = BackendSettings.model_validate(
        {"uri": SERVER, "index": table, "indexes": {"terms": "sparse_wand", "other": {"kind": "ivf_sq8", "nlist": 99}}}
    )
    assert settings.index == Profile(kind="hnsw", build={"M": 30, "efConstruction": 360}, search={"ef": 100})
    assert settings.indexes["terms"] == Profile(kind="sparse_wand")
    assert settings.indexes["other"].build == {"nlist": 99}


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({"uri": SERVER, "index": "sparse_wand"}, "sparse_wand is for sparse legs; name the leg"),
        (
            {"uri": SERVER, "indexes": {"dense": {"kind": "ivf_flat", "nlist": 0}}},
            "indexes.dense: nlist of ivf_flat must",
        ),
        ({"uri": "index.bartizan", "index": "gpu_cagra"}, "the embedded store builds its own indexes"),
        ({"uri": "index.bartizan", "index": {"kind": "hnsw", "M": 5}}, "without parameters"),
        ({"uri": "index.db", "index": "diskann"}, "Milvus Lite builds no diskann index; it has flat, hnsw, ivf_flat"),
        ({"uri": "index.db", "indexes": {"terms": "sparse_wand"}}, "Milvus Lite builds no sparse_wand"),
        ({"uri": SERVER, "least_recall": 1.1}, "least_recall"),
        ({"uri": SERVER, "build_timeout": 0}, "build_timeout"),
    ],
)
def test_a_wrong_table_is_told_before_anything_is_opened(table: dict[str, object], told: str) -> None:
    with pytest.raises(WrongUse, match=told):
        check(BackendSettings, table, Path("bartizan.toml"))
