"""Import of sparse towers: what the published language model and its SPLADE pooling give, the tower gives."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer
from typer.testing import CliRunner

from bartizan_connector.base.errors import Stop, WrongUse
from bartizan_connector.space.spec import RoleSpec, TowerSpec
from bartizan_encoders import backbone as backbones
from bartizan_encoders.commands import tower as command
from bartizan_encoders.importing import Wishes, import_tower
from bartizan_encoders.tower import Tower
from tests.encoders import published, tiny

TEXTS = ["the tower of one", "a", "two, to the tower! 11"]
SPARSE = Wishes(kind="sparse")
OLD = "sentence_transformers.sparse_encoder.models.MLMTransformer"
NEW = "sentence_transformers.base.modules.transformer.Transformer"
MAX = {"pooling_strategy": "max", "activation_function": "relu", "word_embedding_dimension": None}


def _weights(folder: Path, text: str) -> np.ndarray:
    """log1p(relu(logit)) of each token and term, from what transformers computes with the published files."""
    with backbones.quiet_transformers():
        tokenizer = AutoTokenizer.from_pretrained(folder)
        architecture = json.loads((folder / "config.json").read_text())["architectures"][0]
        of = AutoModelForMaskedLM if "Masked" in architecture else AutoModelForCausalLM
        model = of.from_pretrained(folder)
    with torch.no_grad():
        logits = model.eval()(input_ids=torch.tensor([tokenizer(text)["input_ids"]])).logits[0].double().numpy()
    weights: np.ndarray = np.log1p(np.maximum(logits, 0.0))
    return weights


def _encoded(tower: Tower, text: str) -> np.ndarray:
    (tokens,) = tower.tokens.encode([text], "document")
    with torch.no_grad():
        values: np.ndarray = tower(torch.tensor([tokens.ids]), torch.ones(1, len(tokens.ids), dtype=torch.long)).numpy()
    return values[0]


@pytest.mark.packaging
@pytest.mark.parametrize("kind", tiny.LANGUAGE_MODELS)
def test_a_language_model_becomes_a_sparse_tower(tmp_path: Path, kind: str) -> None:
    folder = published.hugging_face(tmp_path / "model", kind, head=True)
    tower = import_tower(str(folder), SPARSE)
    spec = tower.spec
    assert (spec.kind, spec.head, spec.pooling, spec.dim) == ("sparse", "lm", "max", tiny.VOCABULARY)
    assert (spec.normalise, spec.similarity, spec.precision) == (False, "dot", "fp32")
    for text in TEXTS:
        np.testing.assert_allclose(_encoded(tower, text), _weights(folder, text).max(axis=0), atol=1e-6)
    tower.save(tmp_path / "tower")
    np.testing.assert_array_equal(_encoded(Tower.load(tmp_path / "tower"), TEXTS[0]), _encoded(tower, TEXTS[0]))


@pytest.mark.parametrize("transformer", [OLD, NEW])
@pytest.mark.parametrize("strategy", ["max", "sum"])
def test_a_published_splade_model_is_read_in_both_generations(tmp_path: Path, transformer: str, strategy: str) -> None:
    folder = published.splade(
        tmp_path,
        transformer=transformer,
        pooling=MAX | {"pooling_strategy": strategy},
        settings={"prompts": {"query": "ask: ", "document": ""}, "similarity_fn_name": "dot"},
    )
    tower = import_tower(str(folder))
    assert (tower.spec.kind, tower.spec.pooling, tower.spec.similarity) == ("sparse", strategy, "dot")
    assert tower.spec.roles["query"] == RoleSpec(prefix="ask: ", max_tokens=24)
    for text in TEXTS:
        weights = _weights(folder, text)
        expected = weights.max(axis=0) if strategy == "max" else weights.sum(axis=0)
        np.testing.assert_allclose(_encoded(tower, text), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("changed", "wishes", "why"),
    [
        ({"pooling": MAX | {"activation_function": "log1p_relu"}}, Wishes(), "pools by 'max' after 'log1p_relu'"),
        ({"pooling": MAX | {"pooling_strategy": "mean"}}, Wishes(), "pools by 'mean' after 'relu'"),
        ({"settings": {"similarity_fn_name": "cosine"}}, Wishes(), "compares by 'dot'"),
        ({}, Wishes(similarity="cosine"), "compares by 'dot'"),
        ({}, Wishes(kind="dense"), "is published as a sparse model and cannot become a dense tower"),
        ({"sentences": {"transformer_task": "feature-extraction"}}, Wishes(), "is loaded for 'feature-extraction'"),
    ],
)
def test_what_a_sparse_tower_cannot_do_is_refused(
    tmp_path: Path, changed: dict[str, Any], wishes: Wishes, why: str
) -> None:
    folder = published.splade(tmp_path, **({"transformer": OLD, "pooling": MAX} | changed))
    with pytest.raises(WrongUse, match=why):
        import_tower(str(folder), wishes)


def test_a_dense_model_and_one_without_the_head_are_refused(tmp_path: Path) -> None:
    bare = published.hugging_face(tmp_path / "bare")
    with pytest.raises(Stop, match=r"lacks weights .* which would be random"):
        import_tower(str(bare), SPARSE)
    dense = published.sentence_transformers(tmp_path / "dense", pooling={"pooling_mode": "mean"})
    with pytest.raises(WrongUse, match="is published as a dense model and cannot become a sparse tower"):
        import_tower(str(dense), SPARSE)
    seq2seq = published.hugging_face(tmp_path / "t5", "t5")
    with pytest.raises(WrongUse, match="'t5' has no language-model head"):
        import_tower(str(seq2seq), SPARSE)


@pytest.mark.parametrize("wishes", [Wishes(), SPARSE])
@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_a_model_published_in_bf16_is_kept_in_fp32_or_by_choice_as_it_is(
    tmp_path: Path, wishes: Wishes, kind: str
) -> None:
    folder = published.hugging_face(tmp_path / "model", kind, head=True, dtype=torch.bfloat16)
    fine = import_tower(str(folder), wishes)
    coarse = import_tower(str(folder), dataclasses.replace(wishes, precision="bf16"))
    assert [tower.spec.precision for tower in (fine, coarse)] == ["fp32", "bf16"]
    assert fine.spec.tower_id != coarse.spec.tower_id == coarse.spec.space_id
    for one, other in zip(fine.backbone.parameters(), coarse.backbone.parameters(), strict=True):
        assert (one.dtype, other.dtype) == (torch.float32, torch.bfloat16)
        assert torch.equal(one, other.float())
    np.testing.assert_allclose(_encoded(fine, TEXTS[0]), _encoded(coarse, TEXTS[0]), atol=0.02)


def _run(*arguments: object) -> Any:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def test_the_command_makes_and_shows_sparse_towers_and_towers_in_bf16(tmp_path: Path) -> None:
    folder = published.hugging_face(tmp_path / "model", head=True)
    run = _run("import", folder, "--out", tmp_path / "t", "--kind", "sparse", "--precision", "bf16")
    assert run.exit_code == 0, run.exception
    shown = _run("show", tmp_path / "t").stdout
    assert f"sparse, {tiny.VOCABULARY} terms, dot, bf16" in shown
    assert "head lm, max pooling, not normalised" in shown
    spec = json.loads(_run("show", tmp_path / "t", "--json").stdout)
    assert (spec["kind"], spec["head"], spec["precision"]) == ("sparse", "lm", "bf16")
    for option, wrong in (("--kind", "lexical"), ("--precision", "int4")):
        refused = _run("import", folder, "--out", tmp_path / "new", option, wrong)
        assert f"{option} '{wrong}' is not one of" in str(refused.exception)


def test_another_tower_is_only_written_over_when_told_to(tmp_path: Path) -> None:
    model, out = published.hugging_face(tmp_path / "model", head=True), tmp_path / "t"
    assert _run("import", model, "--out", out).exit_code == 0
    first = TowerSpec.read(out)
    assert _run("import", model, "--out", out, "--name", "the same").exit_code == 0
    assert TowerSpec.read(out).name == "the same"
    refused = _run("import", model, "--out", out, "--pooling", "cls")
    assert isinstance(refused.exception, WrongUse)
    assert f"holds another tower, {first.tower_id}" in str(refused.exception)
    assert TowerSpec.read(out).tower_id == first.tower_id
    assert _run("import", model, "--out", out, "--pooling", "cls", "--replace").exit_code == 0
    assert TowerSpec.read(out).pooling == "cls"


def test_a_damaged_tower_is_written_over_when_told_to_and_a_published_model_never(tmp_path: Path) -> None:
    model, out = published.hugging_face(tmp_path / "model", head=True), tmp_path / "t"
    assert _run("import", model, "--out", out).exit_code == 0
    (out / "tower.json").write_text("{")
    refused = _run("import", model, "--out", out)
    assert "holds a tower that cannot be read" in str(refused.exception)
    assert _run("import", model, "--out", out, "--replace").exit_code == 0
    onto_itself = _run("import", model, "--out", model, "--replace")
    assert "is not empty and holds no tower.json" in str(onto_itself.exception)
    assert not (model / "tower.json").exists()
