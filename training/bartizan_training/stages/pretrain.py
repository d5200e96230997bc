"""Pre-training: a small language model from nothing but text, and the towers that later steps start from.

What a family is asked to predict is its own: spans cut out of a text (T5), the next token (causal models), or masked
tokens (BERT). The documents are packed: one after the other, cut into blocks of equal length.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional as F

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.space.spec import RoleSpec, TowerSpec
from bartizan_connector.space.tokens import Tokens
from bartizan_encoders.backbone import quiet_transformers
from bartizan_encoders.importing import import_tower, renamed
from bartizan_training.artefacts import Kind
from bartizan_training.data.packing import Packed, TokenIds
from bartizan_training.data.samplers import Order, require_even, share
from bartizan_training.data.texts import read_texts
from bartizan_training.embedding import arithmetic, by_piece
from bartizan_training.pretraining.noising import IGNORED, holes
from bartizan_training.pretraining.objectives import Noise, objective
from bartizan_training.pretraining.pieces import SENTINELS, Pieces, trained
from bartizan_training.pretraining.predicting import UNLIMITED, cut_into_blocks, summed
from bartizan_training.pretraining.sizes import Size, language_model
from bartizan_training.settings import Imported, Positive, RecipePath, TextSource
from bartizan_training.stages.stage import Batch, Embedded, Stage, TrainingStep
from bartizan_training.step import Place, Taken, under_key
from bartizan_training.towers import PlannedTower, TrainedTowers, wishes

_MODEL, _TOKENIZER_FILE = "model", "tokenizer.json"
_NOISE = 3
"""What a random generator is for; the sampler has the purposes before."""
_UNKNOWN = "0" * 64
"""Stands for a hash that is known when the step is done."""


class Pretrain(TrainingStep):
    """Its table in a recipe."""

    kind: Literal["pretrain"]
    """`pretrain`"""
    model: Size
    """What is made."""
    texts: Annotated[tuple[TextSource, ...], Field(min_length=1)]
    """What is learned from, from one or more sources; each different text counts once."""
    vocabulary: Positive = 8000
    """Pieces of the tokenizer that is trained on the same texts, special ones included."""
    tokenizer: RecipePath | None = None
    """Take this tokenizer.json, or that of this folder, instead of training one."""
    block: Annotated[int, Field(ge=4)] = 512
    """Tokens of one example: the texts stand one after the other and are cut here."""
    noise: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Share of the tokens that a T5 or a BERT is asked about."""
    mean_span: Annotated[float, Field(ge=1)] = 3.0
    """Tokens that a T5 is asked about in a row, on average."""
    tower: Imported = Imported()
    """The tower that is made of the model, in both roles; of a T5, of its encoder."""

    gives: ClassVar[Kind] = "towers"
    takes: ClassVar[Mapping[str, Kind]] = {}

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.lora or self.freeze_embeddings or self.gradient_checkpointing:
            raise ValueError(
                "a new model is trained as a whole: leave lora, freeze_embeddings and gradient_checkpointing out"
            )
        if self.model.hidden % self.model.heads:
            raise ValueError(f"model.hidden = {self.model.hidden} is no multiple of model.heads = {self.model.heads}")
        if self.model.family != "t5" and self.block > self.model.positions:
            raise ValueError(f"block = {self.block} is longer than model.positions = {self.model.positions}")
        if self.model.family == "t5" and holes(self.block, self.noise, self.mean_span)[1] > SENTINELS:
            raise ValueError(f"block = {self.block} gets more holes than the {SENTINELS} that a T5 has names for")
        return self

    def rests_on(self) -> Iterator[Path]:
        """The texts, and the tokenizer that is given."""
        yield from super().rests_on()
        if self.tokenizer:
            yield _file_of(self.tokenizer)

    def plan(self, name: str, towers: Mapping[str, PlannedTower]) -> Mapping[str, PlannedTower]:
        """One tower in both roles, in a space of its own."""
        how, sparse = self.tower, self.tower.kind == "sparse"
        if sparse and self.model.family == "t5":
            raise WrongUse("tower.kind = 'sparse': the encoder of a T5 has no language model's head")
        roles = {role: RoleSpec(max_tokens=how.max_tokens or self.model.positions) for role in ("document", "query")}
        spec = TowerSpec.model_validate(
            {
                "name": name,
                "kind": how.kind or "dense",
                "dim": self.vocabulary if sparse else how.dim or self.model.hidden,
                "pooling": how.pooling or ("max" if sparse else "last" if self.model.causal else "mean"),
                "head": "lm" if sparse else "linear" if how.dim else "none",
                "normalise": not sparse and how.similarity != "dot",
                "similarity": "dot" if sparse else how.similarity or "cosine",
                "roles": roles,
                "special_tokens": how.special_tokens or "template",
                "tokenizer_hash": _UNKNOWN,
                "architecture_hash": _UNKNOWN,
                "weights_hash": _UNKNOWN,
            }
        )
        tower = PlannedTower(
            spec=spec,
            tower=f"{name} document+query",
            space=name,
            layers=len(how.layers or range(self.model.layers)),
            width=self.model.hidden,
            causal=self.model.causal,
        )
        return {"document": tower, "query": tower}

    def check_data(self, seed: tuple[int, int], processes: int) -> None:
        """Texts; how many blocks they fill is known when they are cut."""
        with under_key("texts"):
            read_texts(self.texts, seed=seed)
        with under_key("tokenizer"):
            if self.tokenizer:
                _given(self.model, self.tokenizer)
        with under_key("batch_size"):
            require_even(self.batch_size, processes)

    def made_from(self) -> dict[str, Any]:
        """The settings, and which tokenizer it is."""
        known = {"pieces": _digest(_given(self.model, self.tokenizer).text)} if self.tokenizer else {}
        return super().made_from() | known

    def stage(self, taken: Taken, place: Place) -> "PretrainStage":
        """The stage itself."""
        return PretrainStage(self, place)


class PretrainStage(Stage):
    """Trains all of the model; what only its training needed, as a T5's decoder, is kept beside the towers."""

    def __init__(self, table: Pretrain, place: Place) -> None:
        super().__init__()
        self._table, self._place = table, place
        texts = read_texts(table.texts, seed=place.seed)
        self._pieces = _given(table.model, table.tokenizer) if table.tokenizer else _trained(table, texts, place)
        self._objective = objective(self._pieces, Noise(share=table.noise, mean_span=table.mean_span))
        tokens = Tokens(self._pieces.text, roles=UNLIMITED, special_tokens="none")
        with under_key("texts"):
            size = table.block - 1 if table.model.family == "bert" else table.block
            self._blocks = cut_into_blocks(tokens, texts, size, self._objective.end)
        self.fingerprint = hashlib.sha256(self._blocks.tobytes()).hexdigest()
        with under_key("batch_size"):
            self._order = Order(len(self._blocks), table.batch_size, seed=place.seed)
        self.batches_per_epoch = self._order.batches_per_epoch
        self.model = language_model(table.model.architecture(self._pieces.special, self._pieces.size))

    def batch(self, number: int) -> Batch:
        """This process's blocks as the model sees them, and its targets. A block's noise is its own, whichever process
        has it."""
        accelerator = self._place.accelerator
        drawn = self._order.batch(number)
        mine = share(np.arange(len(drawn)), accelerator.process_index, accelerator.num_processes)
        asked = [
            self._objective.asked(
                self._blocks[drawn[row]].astype(np.int64),
                np.random.default_rng([*self._place.seed, _NOISE, number, int(row)]),
            )
            for row in mine
        ]
        seen = np.stack([ids for ids, _ in asked])
        flat = TokenIds(seen.reshape(-1).astype(np.int32), np.full(len(seen), seen.shape[1], dtype=np.int64))
        packed = Packed.of(flat, self._place.budget(self._table))
        return Batch((packed,), (torch.from_numpy(np.stack([targets for _, targets in asked])),))

    def embed(self, batch: Batch) -> Embedded:
        """The cross entropy and the right answers of each piece of the batch, as sums over its targets."""
        (packed,), (targets,) = batch.texts, batch.beside
        of_pieces = torch.split(targets, [len(ids) for ids, _ in packed.pieces])  # all of one length: in their order
        with arithmetic(packed, self._table.precision):
            return {"sums": torch.stack(by_piece(packed, self._of_piece, of_pieces))}

    def _of_piece(self, ids: Tensor, mask: Tensor, targets: Tensor) -> Tensor:
        return self._sums(*self._objective.answers(self.model, ids, mask, targets))

    def _sums(self, states_TD: Tensor, targets_T: Tensor) -> Tensor:
        def of_some(states: Tensor, targets: Tensor) -> Tensor:
            logits = self._objective.logits(self.model, states).float()
            right = (logits.detach().argmax(dim=1) == targets).float().sum()
            return torch.stack([F.cross_entropy(logits, targets, reduction="sum"), right])

        return summed(of_some, states_TD, targets_T, vocabulary=self._pieces.size)

    def loss(self, embedded: Embedded, batch: Batch) -> Tensor:
        """The mean over this process's targets; every process has as many."""
        asked = (batch.beside[0] != IGNORED).sum()
        loss: Tensor
        loss, right = embedded["sums"].sum(dim=0) / asked
        if self.noting:
            self.notes = {"right_share": right.detach()}
        return loss

    def finish(self) -> "Pretrained":
        """The model, and the tower that it becomes."""
        return Pretrained(self.model, self._pieces, self._table, self._place)


@dataclass(frozen=True, slots=True)
class Pretrained:
    """A trained language model, still to be saved."""

    model: Any
    pieces: Pieces
    table: Pretrain
    place: Place

    def save(self, folder: Path) -> None:
        """Write the model as models are published, and import it from there: what comes out of this step is what
        `bartizan tower import` makes of any other model."""
        published = folder / _MODEL
        with quiet_transformers():
            self.model.save_pretrained(published)
        self.pieces.publish(published, self.table.model.positions)
        tower = import_tower(str(published), wishes(self.table.tower, seed=self.place.recipe_seed))
        tower = renamed(tower, self.place.name)
        TrainedTowers(tower, tower).save(folder)


def _file_of(tokenizer: Path) -> Path:
    return tokenizer / _TOKENIZER_FILE if tokenizer.is_dir() else tokenizer


def _given(model: Size, path: Path) -> Pieces:
    file = _file_of(path)
    try:
        pieces = Pieces(model.family, file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise WrongUse(f"cannot read {file}: {error}") from error
    _ = pieces.special, pieces.sentinels if model.family == "t5" else ()
    return pieces


def _trained(table: Pretrain, texts: Sequence[str], place: Place) -> Pieces:
    """Trained once, by one process, and kept with the run: what goes on later must read as it did."""
    family = table.model.family
    facts = {"family": family, "vocabulary": table.vocabulary, "texts": _digest("\n".join(texts))}
    artefact = place.artefacts.of(family, "tokenizer", facts)
    exists = artefact.exists
    place.accelerator.wait_for_everyone()
    if not exists and place.accelerator.is_main_process:
        with under_key("vocabulary"):
            made = trained(family, texts, table.vocabulary)
        with artefact.written() as folder:
            (folder / _TOKENIZER_FILE).write_text(made.text, encoding="utf-8")
    place.accelerator.wait_for_everyone()
    return Pieces(family, (artefact.folder / _TOKENIZER_FILE).read_text(encoding="utf-8"))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
