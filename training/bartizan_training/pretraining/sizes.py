"""The size of a new language model, and the model of that size."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
)

from bartizan_encoders.backbone import configuration, quiet_transformers
from bartizan_training.settings import Positive, Table

Family = Literal["t5", "llama", "bert"]


class Size(Table):
    """A new language model."""

    family: Family
    """`t5` reads a text with holes and writes what was there, `llama` predicts the next token, `bert` masked ones."""
    layers: Positive
    """Layers; of a T5 those of the encoder."""
    decoder_layers: Positive | None = None
    """Layers of a T5's decoder, which only the training needs; none: as many."""
    hidden: Annotated[int, Field(ge=2)]
    """Width of a token's state."""
    heads: Positive
    """Heads of attention, each hidden / heads wide."""
    feed_forward: Positive
    """Width inside a layer."""
    positions: Positive = 2048
    """Longest text that it has positions for; a T5, whose positions are relative, has no limit."""

    def architecture(self, special: Mapping[str, int], vocabulary: int) -> dict[str, Any]:
        """Its configuration, over so many pieces; `special` are the ids of pad, end, and first token."""
        shape = {
            "t5": {
                "d_model": self.hidden,
                "d_kv": self.hidden // self.heads,
                "d_ff": self.feed_forward,
                "num_layers": self.layers,
                "num_decoder_layers": self.decoder_layers or self.layers,
                "num_heads": self.heads,
                "feed_forward_proj": "gated-gelu",
                "decoder_start_token_id": special["pad"],
                "eos_token_id": special["end"],
            },
            "llama": _wide(self)
            | {"num_key_value_heads": self.heads, "bos_token_id": None}
            | {"eos_token_id": special["end"]},
            "bert": _wide(self),
        }[self.family]
        facts = {"vocab_size": vocabulary, "pad_token_id": special["pad"], "tie_word_embeddings": True}
        return {"model_type": self.family} | shape | facts

    @property
    def causal(self) -> bool:
        """Whether it predicts the next token."""
        return self.family == "llama"


def _wide(size: Size) -> dict[str, Any]:
    return {
        "hidden_size": size.hidden,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "intermediate_size": size.feed_forward,
        "max_position_embeddings": size.positions,
    }


def language_model(architecture: Mapping[str, Any]) -> Any:
    """The whole model with fresh random weights (seed torch first), dropout off."""
    config = configuration(architecture)
    mappings = MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING
    model_class: Any = next(mapping[type(config)] for mapping in mappings if type(config) in mapping)
    with quiet_transformers():
        return model_class(config).to(torch.float32).eval()
