"""Every supported family: a tiny random model in the files it is published in becomes a tower that answers like it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer, T5EncoderModel

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.space.vectors import SparseVector
from bartizan_encoders import backbone as backbones
from bartizan_encoders.importing import Wishes, import_tower
from bartizan_encoders.local import TorchEncoder
from bartizan_encoders.tower import Tower
from tests.encoders import published

ENCODERS = ("bert", "distilbert", "mpnet", "modernbert")
DECODERS = ("llama", "qwen2", "qwen3", "mistral", "gemma", "gpt_neox", "opt")
TEXTS = ["the tower of one", "a", "two, to the tower! 11"]
GTR = {"in_features": 16, "out_features": 24, "bias": False, "activation_function": "torch.nn.modules.linear.Identity"}


def states(folder: Path, model_class: Any = AutoModel) -> list[np.ndarray]:
    """The token vectors of each text that transformers computes from the published files, one text at a time."""
    with backbones.quiet_transformers():
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = model_class.from_pretrained(folder, dtype=torch.float32).eval()
    found = []
    for text in TEXTS:
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        with torch.no_grad():
            out = model(input_ids=ids)
        found.append((out.logits if model_class is AutoModelForCausalLM else out.last_hidden_state)[0].numpy())
    return found


def unit(vectors: list[np.ndarray]) -> np.ndarray:
    return np.stack([vector / np.linalg.norm(vector) for vector in vectors])


def encoded(tower: Tower) -> np.ndarray:
    values = TorchEncoder(tower).encode(TEXTS, "document").values
    if isinstance(values, np.ndarray):
        return values
    return np.stack([_row(row, tower.spec.dim) for row in values])


def _row(vector: SparseVector, dim: int) -> np.ndarray:
    row = np.zeros(dim, dtype=np.float32)
    row[vector.indices] = vector.weights
    return row


@pytest.mark.parametrize("kind", ENCODERS)
def test_an_encoder_becomes_a_dense_tower(tmp_path: Path, kind: str) -> None:
    folder = published.hugging_face(tmp_path, kind, head=True)
    tower = import_tower(str(folder))
    assert (tower.spec.kind, tower.spec.pooling) == ("dense", "mean")
    np.testing.assert_allclose(encoded(tower), unit([state.mean(axis=0) for state in states(folder)]), atol=2e-6)


@pytest.mark.packaging
@pytest.mark.parametrize("kind", DECODERS)
def test_a_decoder_becomes_a_dense_and_a_sparse_tower(tmp_path: Path, kind: str) -> None:
    folder = published.hugging_face(tmp_path, kind, head=True)
    dense = import_tower(str(folder))
    assert (dense.spec.kind, dense.spec.pooling) == ("dense", "last")
    np.testing.assert_allclose(encoded(dense), unit([state[-1] for state in states(folder)]), atol=2e-6)
    logits = states(folder, AutoModelForCausalLM)
    expected = np.stack([np.log1p(np.maximum(of_text, 0)).max(axis=0) for of_text in logits])
    sparse = import_tower(str(folder), Wishes(kind="sparse"))
    np.testing.assert_allclose(encoded(sparse), expected, atol=2e-5)


def gtr(folder: Path) -> Path:
    """As `gtr-t5-base` is published: an encoder and a Dense module without bias, both in fp16."""
    published.hugging_face(folder, "t5", dtype=torch.float16)
    parts = [
        ("", "sentence_transformers.models.Transformer"),
        ("1_Pooling", "sentence_transformers.models.Pooling"),
        ("2_Dense", "sentence_transformers.models.Dense"),
        ("3_Normalize", "sentence_transformers.models.Normalize"),
    ]
    listed = [{"idx": i, "name": str(i), "path": path, "type": kind} for i, (path, kind) in enumerate(parts)]
    pooling = {"word_embedding_dimension": 16, "pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}
    (folder / "modules.json").write_text(json.dumps(listed))
    for name, facts in (("1_Pooling", pooling), ("2_Dense", GTR), ("3_Normalize", {})):
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps(facts))
    weight = torch.randn(24, 16, generator=torch.Generator().manual_seed(3))
    save_file({"linear.weight": weight.half()}, folder / "2_Dense" / "model.safetensors")
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 512, "do_lower_case": False}))
    return folder


def test_a_published_gtr_becomes_a_tower_in_fp32(tmp_path: Path) -> None:
    folder = gtr(tmp_path)
    tower = import_tower(str(folder))
    spec = tower.spec
    assert (spec.dim, spec.head, spec.pooling, spec.normalise, spec.precision) == (24, "linear", "mean", True, "fp32")
    assert isinstance(tower.head, torch.nn.Linear)
    assert tower.head.bias is None
    weight = tower.head.weight.detach().numpy()
    expected = unit([weight @ state.mean(axis=0) for state in states(folder, T5EncoderModel)])
    np.testing.assert_allclose(encoded(tower), expected, atol=2e-6)


def test_of_a_published_t5_the_encoder_is_taken_and_gets_a_bottleneck(tmp_path: Path) -> None:
    v11 = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "decoder_start_token_id": 0}
    folder = published.hugging_face(tmp_path / "model", "t5", head=True, **v11)
    tower = import_tower(str(folder), Wishes(dim=24))
    assert (tower.spec.dim, tower.spec.pooling, tower.spec.normalise) == (24, "mean", True)
    assert isinstance(tower.head, torch.nn.Linear)
    assert tower.head.bias is None
    weight = tower.head.weight.detach().numpy()
    assert weight.std() == pytest.approx(16**-0.5, rel=0.1)
    assert np.abs(weight).max() <= 2 * 16**-0.5 / 0.8796
    expected = unit([weight @ state.mean(axis=0) for state in states(folder, T5EncoderModel)])
    np.testing.assert_allclose(encoded(tower), expected, atol=2e-6)
    assert import_tower(str(folder), Wishes(dim=24)).spec == tower.spec
    assert import_tower(str(folder), Wishes(dim=24, seed=1)).spec.weights_hash != tower.spec.weights_hash
    tower.save(tmp_path / "tower")
    np.testing.assert_array_equal(encoded(Tower.load(tmp_path / "tower")), encoded(tower))


def test_a_t5_in_bf16_answers_like_itself_in_fp32(tmp_path: Path) -> None:
    folder = published.hugging_face(tmp_path, "t5", head=True, feed_forward_proj="gated-gelu")
    fine, coarse = (encoded(import_tower(str(folder), Wishes(dim=24, precision=p))) for p in ("fp32", "bf16"))
    assert (fine * coarse).sum(axis=1).min() > 0.999


@pytest.mark.parametrize(
    ("wishes", "why"),
    [
        (Wishes(dim=8), "has a trained head to 24 dimensions"),
        (Wishes(dim=24, kind="sparse"), "is published as a dense model"),
    ],
)
def test_a_trained_head_is_never_replaced(tmp_path: Path, wishes: Wishes, why: str) -> None:
    with pytest.raises(WrongUse, match=why):
        import_tower(str(gtr(tmp_path)), wishes)


def test_a_sparse_tower_takes_no_bottleneck(tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match="as wide as its vocabulary: leave dim = 24 out"):
        import_tower(str(published.hugging_face(tmp_path, head=True)), Wishes(dim=24, kind="sparse"))
