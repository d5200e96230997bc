"""Tiny towers of many architectures: real Hugging Face models, random or fixed weights, made in milliseconds."""

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from bartizan_connector.space.spec import RoleSpec
from bartizan_encoders.design import Design
from bartizan_encoders.pooling import Pooling
from bartizan_encoders.tower import Tower

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,?!()'\"-:;/_="
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "tower", "a", "of", "to", "two", "one"]
VOCABULARY = 320
"""Room for either tokenizer."""

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "bert": {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32,
             "max_position_embeddings": 64},
    "roberta": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
                "max_position_embeddings": 34, "pad_token_id": 1},
    "distilbert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "max_position_embeddings": 64},
    "t5": {"d_model": 16, "num_layers": 2, "num_heads": 2, "d_kv": 8, "d_ff": 32},
    "modernbert": {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32,
                   "global_attn_every_n_layers": 2, "local_attention": 8, "pad_token_id": 0, "bos_token_id": 2,
                   "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3},
    "llama": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
              "intermediate_size": 32, "max_position_embeddings": 64},
    "qwen3": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
              "head_dim": 8, "intermediate_size": 32, "max_position_embeddings": 64},
    "qwen2": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
              "intermediate_size": 32, "max_position_embeddings": 64},
    "mistral": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
                "head_dim": 8, "intermediate_size": 32, "max_position_embeddings": 64},
    "gemma2": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
               "head_dim": 8, "intermediate_size": 32, "max_position_embeddings": 64, "final_logit_softcapping": 0.5},
    "gpt_neox": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
                 "max_position_embeddings": 64},
    "opt": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 32,
            "max_position_embeddings": 64, "word_embed_proj_dim": 16},
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64, "bos_token_id": 0, "eos_token_id": 0},
}  # fmt: skip
BESIDE: dict[str, dict[str, Any]] = {
    "mpnet": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
              "max_position_embeddings": 66},
    "gemma": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
              "head_dim": 8, "intermediate_size": 32, "max_position_embeddings": 64},
}  # fmt: skip
"""Families that only the import is tested with."""
DECODERS = ("llama", "qwen3", "qwen2", "mistral", "gemma2", "gpt_neox", "opt", "gpt2", "gemma")
LANGUAGE_MODELS = tuple(sorted(ARCHITECTURES.keys() - {"t5"}))


def architecture(kind: str) -> dict[str, Any]:
    """The configuration of a tiny model of that type."""
    return {"model_type": kind, "vocab_size": VOCABULARY, **(ARCHITECTURES | BESIDE)[kind]}


def tower(
    kind: str = "bert", *, pooling: Pooling | None = None, dim: int | None = None, normalise: bool = True, seed: int = 0
) -> Tower:
    """A tower with random weights, large enough that no two texts come near each other."""
    torch.manual_seed(seed)
    decoder = kind in DECODERS
    made = Tower.fresh(
        architecture(kind),
        bytes_tokenizer() if decoder else words_tokenizer(),
        Design(
            name=f"tiny-{kind}",
            roles={"query": RoleSpec(prefix="ask: ", max_tokens=20), "document": RoleSpec(max_tokens=32)},
            pooling=pooling or ("last" if decoder else "mean"),
            normalise=normalise,
            similarity="cosine" if normalise else "dot",
        ),
        dim=dim,
    )
    return _spread(made)


def sparse_tower(
    kind: str = "bert", *, pooling: Pooling = "max", tied: bool | None = None, seed: int = 0, **facts: Any
) -> Tower:
    """A tower of random weights over the head of its language model; `tied` None: as its family has it."""
    torch.manual_seed(seed)
    tie = {} if tied is None else {"tie_word_embeddings": tied}
    made = Tower.fresh(
        architecture(kind) | tie | facts,
        bytes_tokenizer() if kind in DECODERS else words_tokenizer(),
        Design.sparse(
            name=f"tiny-sparse-{kind}",
            roles={"query": RoleSpec(prefix="ask: ", max_tokens=20), "document": RoleSpec(max_tokens=32)},
            pooling=pooling,
        ),
    )
    return _spread(made)


def _spread(made: Tower) -> Tower:
    """Weights large enough that no two texts come near each other."""
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if weight.ndim == 2:
                weight.mul_(0.3 / weight.std())
            if "norm" not in name.lower() and weight.ndim == 1:
                weight.uniform_(-0.1, 0.1)
    return made


def saved(folder: Path, kind: str = "bert", **how: Any) -> Path:
    """The folder of a tiny tower."""
    tower(kind, **how).save(folder)
    return folder


def fixed(made: Tower) -> Tower:
    """The same tower with weights that are the same on every machine and with every version of torch."""
    with torch.no_grad():
        for start, (_, weight) in enumerate(sorted(made.named_parameters())):
            numbers = torch.arange(weight.numel(), dtype=torch.int64) * 37 + start
            weight.copy_(((numbers % 101 - 50).to(torch.float32) / 128).reshape(weight.shape))
    return made


def words_tokenizer() -> str:
    """A lower-casing WordPiece with [CLS] and [SEP], as BERT has it."""
    pieces = [*WORDS, *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    made = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=50))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    made.add_special_tokens(WORDS[:4])
    return str(made.to_str())


def bytes_tokenizer() -> str:
    """One token a byte after a first <s>, as decoders have it."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<s>": 0} | {letter: i for i, letter in enumerate(alphabet, start=1)}
    made = Tokenizer(models.BPE(vocabulary, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    made.add_special_tokens(["<s>"])
    return str(made.to_str())


def as_json(text: str) -> Any:
    """The tokenizer's facts, for a test to change."""
    return json.loads(text)
