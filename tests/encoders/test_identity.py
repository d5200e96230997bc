"""What changes a vector changes the tower's identity; what cannot, does not; and later versions cannot drift unseen."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from bartizan_connector.space.spec import RoleSpec
from bartizan_encoders.backbone import architecture_hash
from bartizan_encoders.design import Design
from bartizan_encoders.tower import Tower
from bartizan_encoders.weights import WEIGHTS_FILE, state_of, weights_hash
from tests.encoders import tiny

STATE = {"b": torch.arange(6, dtype=torch.float32).reshape(2, 3), "a": torch.tensor(2.5), "none": torch.zeros(0, 4)}


def test_the_identity_of_a_fixed_tower_is_what_it_always_was() -> None:
    tokenizer = (Path(__file__).parent / "golden" / "tokenizer.json").read_text("utf-8")
    design = Design(name="golden", roles={"query": RoleSpec(prefix="ask: ", max_tokens=20)})
    spec = tiny.fixed(Tower.fresh(tiny.architecture("bert"), tokenizer, design, dim=8)).spec
    assert spec.tokenizer_hash == "3ba2455811dea9b288530743f9fd1e38fb4e1851c7e461fdc9848dc91354d3ba"
    assert spec.architecture_hash == "028bc9b8df8ad0621febb778411723c847d2e0c4efd47b5aa9a8ea3494e1b94b"
    assert spec.weights_hash == "c6ad0d86aa13ddf52eb128eb3f42f6d104cc5c8d1d40a3e41ffa529199ff2303"
    assert spec.tower_id == "tw-fc8504a777d0bf732189143f5bd89bc8"


def test_the_identity_of_a_fixed_sparse_tower_is_what_it_always_was() -> None:
    tokenizer = (Path(__file__).parent / "golden" / "tokenizer.json").read_text("utf-8")
    design = Design.sparse(name="golden", roles={"query": RoleSpec(prefix="ask: ", max_tokens=20)})
    for kind, known in (
        ("bert", "tw-6145321331e937838065b3baa97e2a5e"),
        ("llama", "tw-f04b79ff408705545063bcd6db788825"),
    ):
        assert tiny.fixed(Tower.fresh(tiny.architecture(kind), tokenizer, design)).spec.tower_id == known


@given(st.sampled_from(["a", "b"]), st.data())
@settings(max_examples=30, deadline=None)
def test_any_bit_of_any_weight_counts(name: str, data: st.DataObject) -> None:
    changed = {key: tensor.clone() for key, tensor in STATE.items()}
    raw = changed[name].reshape(-1).view(torch.uint8)
    place = data.draw(st.integers(0, raw.numel() - 1))
    raw[place] ^= 1 << data.draw(st.integers(0, 7))
    assert weights_hash(changed) != weights_hash(STATE)


def test_names_shapes_and_types_of_weights_count() -> None:
    known = weights_hash(STATE)
    flat = STATE | {"b": STATE["b"].reshape(3, 2)}
    renamed = {"c" if key == "b" else key: tensor for key, tensor in STATE.items()}
    halved = STATE | {"a": STATE["a"].half()}
    fewer = {key: tensor for key, tensor in STATE.items() if key != "none"}
    assert len({known, *(weights_hash(state) for state in (flat, renamed, halved, fewer))}) == 5


def test_order_and_memory_layout_of_weights_do_not_count() -> None:
    strided = STATE["b"].T.contiguous().T
    assert not strided.is_contiguous()
    assert weights_hash(dict(reversed((STATE | {"b": strided}).items()))) == weights_hash(STATE)


def test_a_tied_weight_is_one_weight() -> None:
    state = state_of(tiny.tower("t5"))
    assert "backbone.encoder.embed_tokens.weight" in state
    assert "backbone.shared.weight" not in state


@pytest.mark.parametrize("kind", sorted(tiny.ARCHITECTURES))
def test_any_fact_of_the_architecture_counts(kind: str) -> None:
    facts = tiny.architecture(kind)
    changes: list[dict[str, Any]] = [facts | {key: value + 1} for key, value in facts.items() if isinstance(value, int)]
    changes.append(facts | {"hidden_act": "relu"})
    changes.append(facts | {"model_type": "other"})
    assert len({architecture_hash(changed) for changed in [facts, *changes]}) == len(changes) + 1


@given(st.randoms(use_true_random=False))
@settings(max_examples=20, deadline=None)
def test_provenance_dropout_and_order_of_the_architecture_do_not_count(source: random.Random) -> None:
    facts = tiny.architecture("bert")
    idle = {
        "_name_or_path": "someone/else", "transformers_version": "9.9", "torch_dtype": "float16", "dtype": "bfloat16",
        "architectures": ["BertForMaskedLM"], "use_cache": False, "hidden_dropout_prob": 0.3, "attention_dropout": 0.2,
        "classifier_dropout": None, "id2label": {"0": "no"}, "initializer_range": 0.5, "gradient_checkpointing": True,
        "output_hidden_states": True, "problem_type": "regression",
    }  # fmt: skip
    items = list((facts | idle).items())
    source.shuffle(items)
    assert architecture_hash(dict(items)) == architecture_hash(facts)


def test_what_the_hash_leaves_out_changes_no_vector() -> None:
    one = tiny.fixed(tiny.tower())
    idle = {
        "hidden_dropout_prob": 0.5,
        "attention_probs_dropout_prob": 0.5,
        "use_cache": True,
        "initializer_range": 9.0,
    }
    other = tiny.fixed(
        Tower.fresh(one.architecture | idle, one.tokens.text, _design_of(one)),
    )
    ids, mask = torch.tensor([[2, 5, 6, 3]]), torch.ones(1, 4, dtype=torch.long)
    assert torch.equal(one(ids, mask), other(ids, mask))
    assert one.spec.tower_id == other.spec.tower_id


def test_how_the_weights_file_is_laid_out_does_not_count(bert_folder: Path, tmp_path: Path) -> None:
    tower = Tower.load(bert_folder)
    for file in bert_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    state = load_file(tmp_path / WEIGHTS_FILE)
    save_file(dict(reversed(state.items())), tmp_path / WEIGHTS_FILE, metadata={"written": "by another program"})
    assert (tmp_path / WEIGHTS_FILE).read_bytes() != (bert_folder / WEIGHTS_FILE).read_bytes()
    assert Tower.load(tmp_path).spec == tower.spec


@pytest.mark.parametrize("kind", ["bert", "t5", "llama"])
def test_any_parameter_that_moves_gives_another_tower(kind: str) -> None:
    tower = tiny.tower(kind, dim=4)
    seen = {tower.spec.tower_id}
    for _, weight in tower.named_parameters():
        with torch.no_grad():
            weight.view(-1)[-1] += 0.25
        seen.add(tower.spec.tower_id)
    assert len(seen) == len(list(tower.parameters())) + 1


def _design_of(tower: Tower) -> Design:
    return Design(name="another name", roles=tower.spec.roles, pooling="mean")
