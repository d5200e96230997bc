"""Query distillation (ScalingNote's QKD): a small query tower learns to put queries where the large one puts them.

Only query texts are needed: no documents, no labels. The teacher and the document tower are frozen; what the student
makes can be searched for in the index that the document tower built.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.space.spec import TowerSpec
from bartizan_encoders.design import Design
from bartizan_encoders.tower import Tower
from bartizan_training.artefacts import Kind
from bartizan_training.data.packing import Packed
from bartizan_training.data.samplers import Order, require_even, share
from bartizan_training.data.texts import read_texts
from bartizan_training.embedding import arithmetic, by_piece, capped, encode
from bartizan_training.frozen import Frozen, freeze
from bartizan_training.losses import alignment, token_gap
from bartizan_training.settings import Alignment, Start, TextSource
from bartizan_training.stages.first_head import lay
from bartizan_training.stages.stage import Batch, Embedded, Stage, TrainingStep
from bartizan_training.step import FromTowers, Place, Taken, under_key
from bartizan_training.towers import PlannedTower, Towers, TrainedTowers


class DistilQuery(FromTowers, TrainingStep):
    """Its table in a recipe."""

    kind: Literal["distil_query"]
    """`distil_query`"""
    layers: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    """The student is the teacher cut to these layers, counted from 0; give `layers` or `student`."""
    student: Start | None = None
    """The student is this tower, or this published model; a linear head brings it to the document tower's dimension."""
    texts: Annotated[tuple[TextSource, ...], Field(min_length=1)]
    """Query texts, from one or more sources; each different text counts once."""
    loss: Alignment = Alignment()
    """How far the student is from the teacher."""

    gives: ClassVar[Kind] = "towers"
    brings: ClassVar[str] = "student"

    @model_validator(mode="after")
    def _one_student(self) -> Self:
        if (self.layers is None) == (self.student is None):
            raise ValueError("give either layers or student")
        return self

    def plan(self, name: str, towers: Mapping[str, PlannedTower]) -> Mapping[str, PlannedTower]:
        """The document tower as it was, and a student of its space."""
        document, teacher = towers["document"], towers["query"]
        teacher.spec.role("query")
        origin = PlannedTower.read(self.brought) if self.brought else self._cut(teacher)
        with under_key("student"):
            student = origin.trained_in(name, space=document.space, roles=("query",))
        if self.loss.w_tokens:
            with under_key("loss.w_tokens"):
                _require_same_tokens(student, teacher)
        return {"document": document, "query": student}

    def _cut(self, teacher: PlannedTower) -> PlannedTower:
        kept = list(self.layers or ())
        if not kept or kept != sorted(set(kept)) or kept[-1] >= teacher.layers:
            raise WrongUse(
                f"layers = {kept}: cannot keep the layers {kept} of a tower that has {teacher.layers}: expected rising "
                f"numbers from 0 to {teacher.layers - 1}"
            )
        return replace(teacher, layers=len(kept))

    def check_data(self, seed: tuple[int, int], processes: int) -> None:
        """Texts that fill a batch."""
        with under_key("texts"):
            texts = self.read(seed)
        with under_key("batch_size"):
            Order(len(texts), self.batch_size, seed=seed)
            require_even(self.batch_size, processes)

    def read(self, seed: tuple[int, int]) -> tuple[str, ...]:
        """The texts; no more than a try-out uses."""
        texts = read_texts(self.texts, seed=seed)
        return texts if self.limit is None else texts[: self.limit * self.accumulate * self.batch_size]

    def stage(self, taken: Taken, place: Place) -> "DistilQueryStage":
        """The stage itself."""
        start = Towers.load(taken["document"], taken["query"])
        return DistilQueryStage(self, start, place, taken["document"])


class DistilQueryStage(Stage):
    """Trains the student alone. Where the teacher puts every text is computed once; only a comparison token by token
    has the teacher run beside the student, on the same batches."""

    def __init__(self, table: DistilQuery, start: Towers, place: Place, document: Path) -> None:
        super().__init__()
        self._table, self._place, self._document = table, place, document
        self._space = start.document.spec
        self.student = _student(table, start)
        texts = table.read(place.seed)
        self.fingerprint = hashlib.sha256(json.dumps(texts).encode()).hexdigest()
        self._order = Order(len(texts), table.batch_size, seed=place.seed)
        self.batches_per_epoch = self._order.batches_per_epoch
        self._tokens = place.tokens(capped(self.student, table.max_tokens), "query", texts)
        if table.loss.w_tokens:
            _require_same_tokens(_form(self.student), _form(start.query))
            self._beside = (start.query.to(place.accelerator.device).eval(),)  # in a tuple it is no part of the stage
        else:
            frozen = Frozen(tower=start.query, role="query", texts=texts, raw=True, precision=table.precision)
            self._teacher = freeze(frozen, place)
            if _has_new_head(table, self._space):
                device = place.accelerator.device
                lay(self.student, self._tokens, self._teacher, place.budget(table), device)

    def batch(self, number: int) -> Batch:
        """This process's texts, and where the teacher puts them."""
        accelerator = self._place.accelerator
        mine = share(self._order.batch(number), accelerator.process_index, accelerator.num_processes)
        packed = Packed.of(self._tokens.pick(mine), self._place.budget(self._table))
        return Batch((packed,), () if self._table.loss.w_tokens else (self._teacher.pick(mine),))

    def embed(self, batch: Batch) -> Embedded:
        """The student's vectors; token by token, the teacher's too, and how far apart their tokens are."""
        (packed,) = batch.texts
        if self._table.loss.w_tokens:
            return self._side_by_side(packed)
        return {"student": encode(self.student, packed, precision=self._table.precision, raw=True)}

    def loss(self, embedded: Embedded, batch: Batch) -> Tensor:
        """The mean over this process's texts."""
        how = self._table.loss
        teacher_BD = embedded["teacher"] if how.w_tokens else batch.beside[0]
        loss = alignment(embedded["student"], teacher_BD, **how.model_dump(exclude={"w_tokens"}))
        return loss + how.w_tokens * embedded["token_gap"].mean() if how.w_tokens else loss

    def _side_by_side(self, packed: Packed) -> Embedded:
        """Of student and teacher on the same texts, in any one order."""
        (teacher,) = self._beside

        def of_piece(ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            hidden_BLD = self.student.hidden(ids, mask)
            with torch.no_grad():
                target_BLD = teacher.hidden(ids, mask)
                target_BD = teacher.pooled(target_BLD, mask)
            gap_B = token_gap(hidden_BLD.float(), target_BLD.float(), mask)
            return self.student.pooled(hidden_BLD, mask), target_BD, gap_B

        with arithmetic(packed, self._table.precision):
            found = by_piece(packed, of_piece)
        parts = (torch.cat(part).float() for part in zip(*found, strict=True))
        return dict(zip(("student", "teacher", "token_gap"), parts, strict=True))

    def towers_now(self) -> tuple[Tower, Path]:
        """The student, and where the document tower lies."""
        return self.student, self._document

    def finish(self) -> TrainedTowers:
        """The student joins the document tower's space."""
        spec = self.student.spec.model_copy(update={"name": f"{self._place.name}-query"})
        self.student.spec = spec.aligned_to(self._space)
        return TrainedTowers(self.student, self._document)


def _form(tower: Tower) -> PlannedTower:
    config, spec = tower.backbone.config, tower.spec
    return PlannedTower(
        spec=spec,
        tower=spec.tower_id,
        space=spec.space_id,
        layers=config.num_hidden_layers,
        width=config.hidden_size,
    )


def _require_same_tokens(student: PlannedTower, teacher: PlannedTower) -> None:
    """Token by token, only towers can be compared that cut a text alike, with hidden states of one width."""
    facts = [
        (tower.spec.tokenizer_hash, tower.spec.special_tokens, tower.spec.role("query"), tower.width)
        for tower in (student, teacher)
    ]
    if facts[0] != facts[1]:
        raise WrongUse(
            f"w_tokens compares '{student.spec.name}' and its teacher '{teacher.spec.name}' token by token, but they "
            "differ in tokenizer, query prefix or length, or width; give `layers`, or leave w_tokens out"
        )


def _has_new_head(table: DistilQuery, space: TowerSpec) -> bool:
    """Whether the student comes without a head to the document tower's size."""
    folder = table.brought
    return folder is not None and TowerSpec.read(folder).dim != space.dim


def _student(table: DistilQuery, start: Towers) -> Tower:
    """A tower for queries alone, with vectors of the document tower's size and similarity."""
    space = start.document.spec
    folder = table.brought
    origin = Tower.load(folder) if folder else start.query.cut(table.layers or ())
    spec = origin.spec
    head = origin.head
    if _has_new_head(table, space):
        head = nn.Linear(origin.backbone.config.hidden_size, space.dim)
    design = Design(
        name=spec.name,
        roles={"query": spec.role("query")},
        pooling=spec.pooling,
        normalise=space.normalise,
        similarity=space.similarity,
        special_tokens=spec.special_tokens,
    )
    return Tower.assemble(
        origin.backbone, head, architecture=origin.architecture, tokenizer=origin.tokens.text, design=design
    )
