"""The contract can grow: a fact added later changes no identity at its default, and what was written earlier opens."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
from pydantic import BaseModel

from bartizan_connector.base.errors import SpaceMismatch, Stop
from bartizan_connector.encode.onnx import OnnxEncoder
from bartizan_connector.space.canonical import canonical_facts, digest_of
from bartizan_connector.space.spec import SPEC_FILE, Role, RoleSpec, TowerSpec
from bartizan_connector.space.vectors import Floats
from bartizan_encoders.local import TorchEncoder

FIXTURES = Path(__file__).parents[2] / "fixtures/0.1.0"
KNOWN = json.loads((FIXTURES / "known.json").read_bytes())
VECTORS: list[tuple[Callable[[Path], Any], str, Role, str]] = [
    (OnnxEncoder.open, "exports/document", "document", "document_vectors"),
    (TorchEncoder.open, "towers/document", "document", "document_vectors"),
    (OnnxEncoder.open, "exports/query", "query", "query_vectors_int8"),
    (TorchEncoder.open, "towers/query", "query", "torch_query"),
]


class LaterRole(RoleSpec):
    """A role with a fact that came later."""

    suffix: str = ""


class LaterSpec(TowerSpec):
    """A contract that has grown: a fact of its own, a table of facts, and one in each role."""

    class Routing(BaseModel):
        """Facts inside a fact."""

        experts: int = 1

    roles: dict[Role, LaterRole]
    layer: Literal["last", "middle"] = "last"
    routing: Routing = Routing()


@pytest.fixture(params=[TowerSpec, LaterSpec], ids=["as it is", "grown"])
def spec_class(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> type[TowerSpec]:
    """The contract, everywhere in the program."""
    grown: type[TowerSpec] = request.param
    for module in [each for name, each in sys.modules.items() if name.startswith("bartizan_")]:
        if getattr(module, "TowerSpec", None) is TowerSpec:
            monkeypatch.setattr(module, "TowerSpec", grown)
    return grown


@pytest.mark.parametrize("name", KNOWN["towers"])
def test_every_written_spec_keeps_its_identities(name: str, spec_class: type[TowerSpec]) -> None:
    spec = spec_class.read(FIXTURES / name)
    assert {"tower_id": spec.tower_id, "space_id": spec.space_id} == KNOWN["towers"][name]
    assert spec.to_json() + "\n" == (FIXTURES / name / SPEC_FILE).read_text(encoding="utf-8")


@pytest.mark.parametrize(("open_", "folder", "role", "known"), VECTORS, ids=["onnx", "torch", "int8", "torch-query"])
def test_every_written_tower_and_export_opens_and_gives_its_vectors(
    open_: Callable[[Path], Any], folder: str, role: Role, known: str, spec_class: type[TowerSpec]
) -> None:
    encoder = open_(FIXTURES / folder)
    assert type(encoder.spec) is spec_class
    vectors = encoder.encode(KNOWN["texts"], role)
    encoder.close()
    expected: Floats = np.array(KNOWN[known], dtype=np.float32)
    assert (vectors.tower_id, vectors.space_id) == tuple(KNOWN["towers"][folder].values())
    assert (vectors.values * expected).sum(axis=1).min() >= 0.99
    if encoder.spec.precision == "fp32":
        np.testing.assert_allclose(vectors.values, expected, atol=1e-5)


@pytest.mark.parametrize(
    "change",
    [{"layer": "middle"}, {"routing": {"experts": 2}}, {"roles": {"query": {"max_tokens": 20, "suffix": "?"}}}],
    ids=lambda change: "+".join(change),
)
def test_a_later_fact_that_is_set_is_another_tower_and_survives_the_disk(
    change: dict[str, Any], tmp_path: Path
) -> None:
    facts = json.loads((FIXTURES / "towers/query" / SPEC_FILE).read_bytes())
    plain = {key: value for key, value in facts.items() if key in TowerSpec.model_fields}
    before = LaterSpec.model_validate(plain)
    if "roles" in change:
        change = {"roles": {"query": plain["roles"]["query"] | change["roles"]["query"]}}
    after = LaterSpec.model_validate(plain | change)
    assert before.tower_id == KNOWN["towers"]["towers/query"]["tower_id"] != after.tower_id
    after.write(tmp_path)
    assert LaterSpec.read(tmp_path) == after
    with pytest.raises(Stop, match=r"tower\.json was written by a newer Bartizan: this version does not know"):
        TowerSpec.read(tmp_path)


def test_an_edit_is_no_newer_version_and_is_still_refused(tmp_path: Path) -> None:
    facts = json.loads((FIXTURES / "towers/query" / SPEC_FILE).read_bytes())
    (tmp_path / SPEC_FILE).write_text(json.dumps(facts | {"layer": "middle"}))
    with pytest.raises(Stop, match="is not a readable tower spec") as refusal:
        TowerSpec.read(tmp_path)
    assert "newer Bartizan" not in str(refusal.value)
    for edited in (facts | {"layer": "middle"}, facts | {"layer": "last"}, facts | {"dim": 9}):
        (tmp_path / SPEC_FILE).write_text(json.dumps(edited))
        with pytest.raises(SpaceMismatch, match="was changed after it was written"):
            LaterSpec.read(tmp_path)


class Part(BaseModel):
    """A model inside others."""

    founding: ClassVar[frozenset[str]] = frozenset({"name"})
    name: str
    later: tuple[int, ...] = ()


class Whole(BaseModel):
    """One with models in every kind of place, and one whose class names no founding fields."""

    class Plain(BaseModel):
        """All of its fields are founding ones."""

        number: int = 3

    founding: ClassVar[frozenset[str]] = frozenset({"parts", "named", "plain"})
    parts: tuple[Part, ...]
    named: dict[Literal["a", "b"], list[Part]]
    plain: Plain = Plain()
    later: Part | None = None


def test_later_fields_are_left_out_at_any_depth_and_only_at_their_default() -> None:
    old, new = Part(name="x"), Part(name="y", later=(1, 2))
    assert canonical_facts(Whole(parts=(old, new), named={"b": [old], "a": [new]})) == {
        "parts": [{"name": "x"}, {"name": "y", "later": [1, 2]}],
        "named": {"b": [{"name": "x"}], "a": [{"name": "y", "later": [1, 2]}]},
        "plain": {"number": 3},
    }
    assert canonical_facts(Whole(parts=(), named={}, later=old))["later"] == {"name": "x"}


def test_a_digest_depends_on_facts_and_domain_and_not_on_their_order() -> None:
    assert digest_of({"a": 1, "b": 2}, domain="x") == digest_of({"b": 2, "a": 1}, domain="x")
    assert len({digest_of({"a": 1}, domain="x"), digest_of({"a": 1}, domain="y"), digest_of({"a": 2}, domain="x")}) == 3
