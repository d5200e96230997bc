"""The space contract: what changes a tower's identity, what does not, and that nothing drifts unseen."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bartizan_connector.base.errors import SpaceMismatch, Stop, WrongUse
from bartizan_connector.space.canonical import digest_of
from bartizan_connector.space.spec import RoleSpec, TowerSpec

DIGEST = {name: digest_of({"of": name}, domain="test") for name in ("tokenizer", "architecture", "weights", "other")}
FACTS: dict[str, Any] = {
    "name": "golden",
    "kind": "dense",
    "dim": 384,
    "pooling": "mean",
    "head": "none",
    "normalise": True,
    "similarity": "cosine",
    "roles": {"query": {"prefix": "query: ", "max_tokens": 32}, "document": {"prefix": "", "max_tokens": 256}},
    "special_tokens": "template",
    "tokenizer_hash": DIGEST["tokenizer"],
    "architecture_hash": DIGEST["architecture"],
    "weights_hash": DIGEST["weights"],
    "precision": "fp32",
    "space": None,
}


def spec_of(**changed: Any) -> TowerSpec:
    return TowerSpec.model_validate(FACTS | changed)


GOLDEN = spec_of()

CHANGES_VECTORS: list[dict[str, Any]] = [
    {"dim": 383},
    {"pooling": "cls"},
    {"pooling": "last"},
    {"head": "linear"},
    {"normalise": False, "similarity": "dot"},
    {"similarity": "dot"},
    {"kind": "sparse", "normalise": False, "similarity": "dot"},
    {"roles": {"query": {"prefix": "query:", "max_tokens": 32}, "document": {"prefix": "", "max_tokens": 256}}},
    {"roles": {"query": {"prefix": "query: ", "max_tokens": 33}, "document": {"prefix": "", "max_tokens": 256}}},
    {"roles": {"query": {"prefix": "query: ", "max_tokens": 32}}},
    {"special_tokens": "none"},
    {"tokenizer_hash": DIGEST["other"]},
    {"architecture_hash": DIGEST["other"]},
    {"weights_hash": DIGEST["other"]},
    {"precision": "int8"},
    {"attention": "bidirectional"},
    {"echo": True},
    {"kind": "sparse", "normalise": False, "similarity": "dot", "top_terms": 10},
]


def test_the_golden_identities_have_not_drifted() -> None:
    assert GOLDEN.tower_id == "tw-4f76ecce557bdc5244992ff900cb3999"
    assert spec_of(kind="sparse", dim=30522, pooling="max", head="lm", normalise=False, similarity="dot").tower_id == (
        "tw-b6dfde895764802975a82eb2e59fa084"
    )
    assert json.loads(GOLDEN.to_json())["seal"] == "dcee18af18923162d87eeffa8bc16859e23923429f9578984a7c6d1589d2dd85"


@pytest.mark.parametrize("change", CHANGES_VECTORS, ids=lambda change: "+".join(change))
def test_a_change_that_can_change_a_vector_changes_the_tower_id(change: dict[str, Any]) -> None:
    assert spec_of(**change).tower_id != GOLDEN.tower_id


def test_every_change_gives_an_identity_of_its_own() -> None:
    ids = [spec_of(**change).tower_id for change in CHANGES_VECTORS]
    assert len(set(ids)) == len(ids)


def test_every_field_is_tried_or_known_to_change_no_vector() -> None:
    tried = {key for change in CHANGES_VECTORS for key in change}
    assert set(TowerSpec.model_fields) == tried | {"name", "space"}


@given(name=st.text(min_size=1), space=st.none() | st.text(min_size=1))
def test_a_name_or_an_inherited_space_changes_no_tower_id(name: str, space: str | None) -> None:
    assert spec_of(name=name, space=space).tower_id == GOLDEN.tower_id


@given(st.permutations(sorted(FACTS)), st.integers(0, 8))
def test_the_spelling_of_the_file_changes_nothing(order: list[str], indent: int) -> None:
    facts = json.loads(GOLDEN.to_json())
    shuffled = {key: facts[key] for key in [*order, "seal", "space_id", "tower_id"]}
    read = TowerSpec.from_json(json.dumps(shuffled, indent=indent), origin="test")
    assert read == GOLDEN
    assert read.tower_id == GOLDEN.tower_id


prefixes = st.text(st.characters(codec="utf-8"), max_size=20)
roles = st.builds(RoleSpec, prefix=prefixes, max_tokens=st.integers(1, 10**6))


@given(roles, roles)
def test_two_roles_are_one_identity_exactly_when_equal(a: RoleSpec, b: RoleSpec) -> None:
    same = spec_of(roles={"query": a}).tower_id == spec_of(roles={"query": b}).tower_id
    assert same == (a == b)


@given(
    st.sampled_from(["dim", "pooling", "normalise", "roles", "weights_hash", "space", "tower_id", "space_id", "name"]),
)
def test_an_edited_spec_file_is_refused_as_another_space(key: str) -> None:
    facts = json.loads(GOLDEN.aligned_to(spec_of(weights_hash=DIGEST["other"])).to_json())
    edited: dict[str, Any] = {
        "dim": 8, "pooling": "cls", "normalise": False, "weights_hash": DIGEST["other"], "name": "x",
        "roles": {"query": {"prefix": "q", "max_tokens": 3}}, "space": "tw-x", "tower_id": "tw-x", "space_id": "tw-x",
    }  # fmt: skip
    facts[key] = edited[key]
    if key == "normalise":
        facts["similarity"] = "dot"
    with pytest.raises(SpaceMismatch, match="changed after it was written") as refusal:
        TowerSpec.from_json(json.dumps(facts), origin="tower.json")
    assert refusal.value.exit_code == 3


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '{"name": "x"}', b"\xff\xfe", "3"])
def test_a_file_that_is_no_spec_is_refused_with_its_name(text: str | bytes) -> None:
    with pytest.raises(Stop, match=r"some/tower\.json"):
        TowerSpec.from_json(text, origin="some/tower.json")


def test_an_unknown_key_in_a_spec_is_refused() -> None:
    facts = json.loads(GOLDEN.to_json()) | {"temperature": 0.05}
    with pytest.raises(Stop, match="temperature"):
        TowerSpec.from_json(json.dumps(facts), origin="tower.json")


def test_a_spec_survives_the_disk(tmp_path: Path) -> None:
    GOLDEN.write(tmp_path)
    assert TowerSpec.read(tmp_path) == GOLDEN


def test_a_folder_without_a_spec_is_named(tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match="is not a tower"):
        TowerSpec.read(tmp_path / "nowhere")


def test_a_distilled_query_tower_inherits_the_space() -> None:
    student = spec_of(weights_hash=DIGEST["other"], roles={"query": {"max_tokens": 32}}).aligned_to(GOLDEN)
    assert student.space_id == GOLDEN.space_id
    assert student.tower_id != GOLDEN.tower_id
    again = spec_of(weights_hash=DIGEST["architecture"]).aligned_to(student)
    assert again.space_id == GOLDEN.space_id


@pytest.mark.parametrize("change", [{"dim": 128}, {"similarity": "dot"}])
def test_a_tower_of_another_shape_cannot_inherit_the_space(change: dict[str, Any]) -> None:
    with pytest.raises(SpaceMismatch, match="Train the tower with"):
        spec_of(**change).aligned_to(GOLDEN)


def test_a_quantised_export_is_another_tower_of_the_same_space() -> None:
    coarse = GOLDEN.at_precision("int8")
    assert coarse.tower_id != GOLDEN.tower_id
    assert coarse.space_id == GOLDEN.space_id
    assert GOLDEN.at_precision("fp32") == GOLDEN


def test_a_role_that_the_tower_lacks_is_refused() -> None:
    with pytest.raises(WrongUse, match="encodes query only, but was asked for document vectors"):
        spec_of(roles={"query": {"max_tokens": 32}}).role("document")


@pytest.mark.parametrize(
    "nonsense",
    [{"normalise": False}, {"kind": "sparse"}, {"roles": {}}, {"dim": 0}, {"roles": {"query": {"max_tokens": 0}}}],
)
def test_a_spec_that_contradicts_itself_cannot_be_made(nonsense: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        spec_of(**nonsense)
