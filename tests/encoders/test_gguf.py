"""GGUF files: what a quantised file stands for is what the tower holds, read by the file's own tokenizer."""

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from tokenizers import pre_tokenizers

from bartizan_connector.base.errors import Retry, Stop, WrongUse
from bartizan_encoders.importing import Wishes, import_tower
from bartizan_encoders.tower import Tower
from tests.encoders import tiny
from tests.needs import unavailable

HEADS, WIDTH = 2, 16


def _for_llama_cpp(weight: np.ndarray, heads: int) -> np.ndarray:
    """The rows of a query or key matrix in the order that llama.cpp wants."""
    parted = weight.reshape(heads, 2, weight.shape[0] // heads // 2, weight.shape[1])
    ordered: np.ndarray = parted.swapaxes(1, 2).reshape(weight.shape)
    return ordered


def written(path: Path, tower: Tower) -> Path:
    """The tower's backbone as a GGUF file, without loss."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("Tiny")
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(2)
    writer.add_feed_forward_length(32)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(tiny.VOCABULARY)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ["<s>", *alphabet, "th"]
    words += [f"<unused{i}>" for i in range(tiny.VOCABULARY - len(words))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(words)
    writer.add_token_types([gguf.TokenType.NORMAL] * len(words))
    writer.add_token_merges(["t h"])
    for key in ("bos", "eos", "unk", "pad"):
        getattr(writer, f"add_{key}_token_id")(0)
    state = {name: tensor.float().numpy() for name, tensor in tower.backbone.state_dict().items()}
    names = {"embed_tokens": "token_embd", "norm": "output_norm"}
    parts = {
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    }  # fmt: skip
    for name, values in state.items():
        stem = name.removesuffix(".weight")
        if stem in names:
            writer.add_tensor(f"{names[stem]}.weight", values)
            continue
        _, layer, part = stem.split(".", 2)
        if part.endswith(("q_proj", "k_proj")):
            values = _for_llama_cpp(values, HEADS if part.endswith("q_proj") else 1)
        writer.add_tensor(f"blk.{layer}.{parts[part]}.weight", np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def source() -> Tower:
    return tiny.sparse_tower("llama", tied=True)


@pytest.fixture(scope="module")
def file(source: Tower, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("gguf") / "tiny.gguf", source)


def test_the_weights_are_those_of_the_file(source: Tower, file: Path) -> None:
    tower = import_tower(str(file), Wishes(kind="sparse", special_tokens="none"))
    assert (tower.spec.kind, tower.spec.name, tower.spec.special_tokens) == ("sparse", "tiny", "none")
    ids = torch.tensor([[5, 60, 7, 11]])
    with torch.no_grad():
        found, expected = tower(ids, torch.ones_like(ids)), source(ids, torch.ones_like(ids))
    np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=1e-4)
    assert "quantization_config" not in tower.architecture


def test_a_folder_with_one_file_is_that_file_and_layers_can_be_left_out(file: Path) -> None:
    tower = import_tower(str(file.parent), Wishes(layers=[1], name="half"))
    assert (tower.spec.kind, tower.spec.name, tower.spec.pooling) == ("dense", "half", "last")
    assert tower.backbone.config.num_hidden_layers == 1


def test_no_special_tokens_means_the_bare_text(file: Path) -> None:
    bare = import_tower(str(file), Wishes(kind="sparse", special_tokens="none")).tokens.encode(["ab"], "query")
    assert bare[0].ids == [tiny_id("a"), tiny_id("b")]


def tiny_id(letter: str) -> int:
    return 1 + sorted(pre_tokenizers.ByteLevel.alphabet()).index(letter)


def test_two_files_and_a_broken_one_are_refused(file: Path, tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(file.read_bytes()[:200])
    with pytest.raises(Stop, match=r"a\.gguf is no GGUF file of a family that transformers reads"):
        import_tower(str(tmp_path))
    (tmp_path / "b.gguf").write_bytes(b"")
    with pytest.raises(WrongUse, match="holds 2 GGUF files; name one of them"):
        import_tower(str(tmp_path))


@pytest.mark.packaging
def test_smollm2_comes_out_of_a_package_and_knows_english() -> None:
    try:
        tower = import_tower("smollm2", Wishes(kind="sparse", special_tokens="none", precision="bf16"))
    except Retry as unreachable:
        unavailable(f"the SmolLM2 weights are not here: {unreachable}")
    assert (tower.spec.dim, tower.backbone.config.num_hidden_layers) == (49152, 30)
    (text,) = tower.tokens.encode(["The capital of France is"], "query")
    ids = torch.tensor([text.ids])
    with torch.no_grad():
        head = tower.head
        assert head is not None
        last = head(tower.hidden(ids, torch.ones_like(ids))[:, -1].float())
    assert last.argmax().item() == tower.tokens.encode([" Paris"], "query")[0].ids[0]
