"""CSPLADE's adaptation: a causal language model learns to predict the next token from what its sparse head keeps.

Without it a sparse tower from a causal language model starts with vectors that are all zero, or all alike, and does not
recover. The documents are packed: one after the other, cut into blocks of equal length.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from bartizan_connector.base.errors import WrongUse
from bartizan_encoders.tower import Tower
from bartizan_training.artefacts import Kind
from bartizan_training.data.packing import Ids, Packed, TokenIds
from bartizan_training.data.samplers import Order, require_even, share
from bartizan_training.data.texts import read_texts
from bartizan_training.embedding import arithmetic, by_piece
from bartizan_training.pretraining.predicting import UNLIMITED, cut_into_blocks, summed
from bartizan_training.settings import Table, TextSource, Weight
from bartizan_training.sparse_losses import next_token_losses
from bartizan_training.stages.stage import Batch, Embedded, Stage, TrainingStep
from bartizan_training.step import FromTowers, Place, Taken, under_key
from bartizan_training.towers import PlannedTower, Towers, TrainedTowers


class NextToken(Table):
    """The two cross entropies of the adaptation."""

    w_relu: Weight = 1.0
    """Weight of the cross entropy of log1p(relu(logits)), beside that of the logits."""


class Adapt(FromTowers, TrainingStep):
    """Its table in a recipe."""

    kind: Literal["adapt"]
    """`adapt`"""
    texts: Annotated[tuple[TextSource, ...], Field(min_length=1)]
    """What is predicted, from one or more sources; each different text counts once."""
    block: Annotated[int, Field(ge=2)] = 2048
    """Tokens of one example: the texts stand one after the other and are cut here."""
    loss: NextToken = NextToken()
    """How the next token is predicted."""

    gives: ClassVar[Kind] = "towers"

    def plan(self, name: str, towers: Mapping[str, PlannedTower]) -> Mapping[str, PlannedTower]:
        """The same sparse tower with other weights."""
        document, query = towers["document"], towers["query"]
        if document.tower != query.tower:
            raise WrongUse("adaptation takes one tower for both roles, but the query tower is another one")
        spec = document.spec
        if spec.kind != "sparse":
            raise WrongUse(
                f"tower '{spec.name}' is dense; import it with kind = 'sparse' for its language model's head"
            )
        if spec.attention != "published":
            raise WrongUse(f"tower '{spec.name}' sees all of a text, so that no next token is left to predict")
        if not document.causal:
            raise WrongUse(f"tower '{spec.name}' is no causal language model: it has no next token to predict")
        tower = document.trained_in(name, space=name, roles=("document", "query"))
        return {"document": tower, "query": tower}

    def check_data(self, seed: tuple[int, int], processes: int) -> None:
        """Texts; how many blocks they fill is known when they are cut."""
        with under_key("texts"):
            read_texts(self.texts, seed=seed)
        with under_key("batch_size"):
            require_even(self.batch_size, processes)

    def stage(self, taken: Taken, place: Place) -> "AdaptStage":
        """The stage itself."""
        return AdaptStage(self, Towers.load(taken["document"], taken["query"]), place)


class AdaptStage(Stage):
    """Trains the tower as the language model that it is made of."""

    def __init__(self, table: Adapt, start: Towers, place: Place) -> None:
        super().__init__()
        self._table, self._place = table, place
        self.tower = start.document
        texts = read_texts(table.texts, seed=place.seed)
        self._blocks = blocks(self.tower, texts, table.block)
        self.fingerprint = hashlib.sha256(self._blocks.tobytes()).hexdigest()
        with under_key("batch_size"):
            self._order = Order(len(self._blocks), table.batch_size, seed=place.seed)
        self.batches_per_epoch = self._order.batches_per_epoch

    def batch(self, number: int) -> Batch:
        """This process's blocks."""
        accelerator = self._place.accelerator
        mine = share(self._order.batch(number), accelerator.process_index, accelerator.num_processes)
        lengths = np.full(len(mine), self._table.block, dtype=np.int64)
        picked = TokenIds(self._blocks[mine].reshape(-1), lengths)
        return Batch((Packed.of(picked, self._place.budget(self._table)),), ())

    def embed(self, batch: Batch) -> Embedded:
        """Both cross entropies of each piece of the batch, as sums over its tokens."""
        (packed,) = batch.texts
        with arithmetic(packed, self._table.precision):
            return {"sums": torch.stack(by_piece(packed, self._sums))}

    def _sums(self, ids: Tensor, mask: Tensor) -> Tensor:
        hidden_BLD: Tensor = self.tower.backbone(input_ids=ids, attention_mask=mask).last_hidden_state
        return _losses(self.tower, hidden_BLD[:, :-1].flatten(0, 1), ids[:, 1:].flatten())

    def loss(self, embedded: Embedded, batch: Batch) -> Tensor:
        """The mean over this process's tokens that have a next one."""
        (packed,) = batch.texts
        tokens = packed.tokens - len(packed.back)
        clm, relu_clm, idle = embedded["sums"].sum(dim=0) / tokens
        if self.noting:
            self.notes = {"clm": clm.detach(), "relu_clm": relu_clm.detach(), "idle_logits": idle.detach()}
        loss: Tensor = clm + self._table.loss.w_relu * relu_clm
        return loss

    def towers_now(self) -> tuple[Tower, Tower]:
        """The tower in both roles."""
        return self.tower, self.tower

    def finish(self) -> TrainedTowers:
        """The tower in both roles."""
        self.tower.spec = self.tower.spec.model_copy(update={"name": self._place.name})
        return TrainedTowers(self.tower, self.tower)


def blocks(tower: Tower, texts: Sequence[str], size: int) -> Ids:
    """Rows of `size` tokens as the tower reads them, each text followed by the model's own end where it has one."""
    end = tower.architecture.get("eos_token_id")
    tokens = tower.tokens.serving(UNLIMITED, tower.spec.special_tokens)
    return cut_into_blocks(tokens, texts, size, end[0] if isinstance(end, list) else end)


def _losses(tower: Tower, hidden_TD: Tensor, next_T: Tensor) -> Tensor:
    """Sums of both losses and the mean share of logits that are not above 0."""
    head = tower.head
    assert isinstance(head, nn.Module)

    def of_some(hidden: Tensor, following: Tensor) -> Tensor:
        logits: Tensor = head(hidden).float()
        idle = (logits.detach() <= 0).float().mean(dim=1).sum()
        return torch.stack([*next_token_losses(logits, following), idle])

    return summed(of_some, hidden_TD, next_T, vocabulary=tower.spec.dim)
