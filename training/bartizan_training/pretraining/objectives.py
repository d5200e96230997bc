"""The three things that a language model can be asked to predict, one for each family.

b blocks of a batch, L tokens that a model sees, M targets of a block, T targets in all that are asked about.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from bartizan_training.data.ragged import Indices
from bartizan_training.pretraining.noising import IGNORED, cut_spans, mask_some
from bartizan_training.pretraining.pieces import Pieces
from bartizan_training.pretraining.sizes import Family


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """How much of a text is hidden."""

    share: float
    mean_span: float


class Objective(Protocol):
    """What is seen and what is to be said, and where in a model the answer stands."""

    end: int | None
    """What stands between two texts."""

    def asked(self, block: Indices, random: np.random.Generator) -> tuple[Indices, Indices]:
        """What the model sees of the block [L], and its targets [M]; each block of a size gives the same lengths."""

    def answers(self, model: Any, ids: Tensor, mask: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The states [T, D] that answer, and their targets [T]."""

    def logits(self, model: Any, states: Tensor) -> Tensor:
        """The model's logits [T, V]."""


class SpanCorruption:
    """T5: spans are cut out of the encoder's text, and the decoder says them."""

    end = None

    def __init__(self, pieces: Pieces, noise: Noise) -> None:
        self._noise, self._sentinels, self._end = noise, pieces.sentinels, pieces.special["end"]

    def asked(self, block: Indices, random: np.random.Generator) -> tuple[Indices, Indices]:
        """The text with holes, and what was in them."""
        return cut_spans(
            block,
            share=self._noise.share,
            mean_span=self._noise.mean_span,
            sentinels=self._sentinels,
            end=self._end,
            random=random,
        )

    def answers(self, model: Any, ids: Tensor, mask: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The decoder's states; it sees all targets before the one that it is to say."""
        start = targets.new_full((len(targets), 1), model.config.decoder_start_token_id)
        seen = model.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        said = model.decoder(
            input_ids=torch.cat([start, targets[:, :-1]], dim=1),
            encoder_hidden_states=seen,
            encoder_attention_mask=mask,
            use_cache=False,
        ).last_hidden_state
        if model.config.scale_decoder_outputs:
            said = said * model.config.d_model**-0.5
        return said.flatten(0, 1), targets.flatten()

    def logits(self, model: Any, states: Tensor) -> Tensor:
        """Of the tied embeddings."""
        logits: Tensor = model.lm_head(states)
        return logits


class NextToken:
    """A causal model: each token but the first is a target."""

    def __init__(self, pieces: Pieces, noise: Noise) -> None:
        self.end = pieces.special["end"]

    def asked(self, block: Indices, random: np.random.Generator) -> tuple[Indices, Indices]:
        """The block, and the block from its second token on."""
        return block, block[1:]

    def answers(self, model: Any, ids: Tensor, mask: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """All states but the last."""
        states: Tensor = model.base_model(input_ids=ids, attention_mask=mask).last_hidden_state
        return states[:, :-1].flatten(0, 1), targets.flatten()

    def logits(self, model: Any, states: Tensor) -> Tensor:
        """Of the tied embeddings."""
        logits: Tensor = model.lm_head(states)
        return logits


class MaskedTokens:
    """BERT: some tokens are hidden, and only they are targets."""

    def __init__(self, pieces: Pieces, noise: Noise) -> None:
        special = pieces.special
        self.end = special["end"]
        self._first, self._mask = special["first"], special["mask"]
        self._share, self._vocabulary = noise.share, pieces.size

    def asked(self, block: Indices, random: np.random.Generator) -> tuple[Indices, Indices]:
        """The block behind the first token; what marks a text's beginning or end is never asked about."""
        tokens = np.concatenate([[self._first], block])
        able = np.flatnonzero((tokens != self._first) & (tokens != self.end))
        return mask_some(
            tokens, share=self._share, able=able, mask=self._mask, vocabulary=self._vocabulary, random=random
        )

    def answers(self, model: Any, ids: Tensor, mask: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The states of the hidden tokens."""
        states: Tensor = model.base_model(input_ids=ids, attention_mask=mask).last_hidden_state
        hidden = targets != IGNORED
        return states[hidden], targets[hidden]

    def logits(self, model: Any, states: Tensor) -> Tensor:
        """By BERT's head."""
        logits: Tensor = model.cls(states)
        return logits


_OF: Mapping[Family, Any] = {"t5": SpanCorruption, "llama": NextToken, "bert": MaskedTokens}


def objective(pieces: Pieces, noise: Noise) -> Objective:
    """What models of the family are pre-trained by."""
    made: Objective = _OF[pieces.family](pieces, noise)
    return made
