"""Query distillation (ScalingNote's QKD): a small query tower learns to put queries where the large one puts them.

Only query texts are needed: no documents, no labels. The teacher and the document tower are frozen; what the student
makes can be searched for in the index that the document tower built.
"""

import hashlib
import json
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from bartizan_connector.base.errors import WrongUse
from bartizan_encoders.design import Design
from bartizan_encoders.tower import Tower
from bartizan_training.data.packing import Packed, TokenTable
from bartizan_training.data.pairs import read_texts
from bartizan_training.data.samplers import Order, share
from bartizan_training.losses import alignment, token_gap
from bartizan_training.settings import Alignment, RecipePath, TextSource, Training
from bartizan_training.stages.frozen import Frozen, freeze
from bartizan_training.stages.stage import Batch, Place, Stage, Towers, Trained, arithmetic, capped, encode


class DistilQuery(Training):
    """Its table in a recipe."""

    kind: Literal["distil_query"]
    """`distil_query`"""
    layers: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    """The student is the teacher cut to these layers, counted from 0; give `layers` or `student`."""
    student: RecipePath | None = None
    """The student is this tower; a linear head brings it to the document tower's dimension."""
    texts: Annotated[tuple[TextSource, ...], Field(min_length=1)]
    """Query texts, from one or more sources; each different text counts once."""
    loss: Alignment = Alignment()
    """How far the student is from the teacher."""

    @model_validator(mode="after")
    def _one_student(self) -> Self:
        if (self.layers is None) == (self.student is None):
            raise ValueError("give either layers or student")
        return self

    def build(self, start: Towers, place: Place) -> "DistilQueryStage":
        """The stage itself."""
        return DistilQueryStage(self, start, place)


class DistilQueryStage(Stage):
    """Trains the student alone. Where the teacher puts every text is computed once; only a comparison token by token
    has the teacher run beside the student, on the same batches."""

    def __init__(self, table: DistilQuery, start: Towers, place: Place) -> None:
        super().__init__()
        self._table, self._place = table, place
        self._space = start.document.spec
        self.student = _student(table, start)
        texts = read_texts(table.texts, seed=place.seed)
        self.fingerprint = hashlib.sha256(json.dumps(texts).encode()).hexdigest()
        self._order = Order(len(texts), table.batch_size, seed=place.seed)
        self.batches_per_epoch = self._order.batches_per_epoch
        self._tokens = TokenTable(capped(self.student, table), "query", texts)
        if table.loss.w_tokens:
            _require_same_tokens(self.student, start.query)
            self._beside = (start.query.to(place.accelerator.device).eval(),)  # in a tuple it is no part of the stage
        else:
            self._teacher = freeze(Frozen(tower=start.query, role="query", texts=texts, raw=True), table, place)

    def batch(self, number: int) -> Batch:
        """This process's texts, and where the teacher puts them."""
        accelerator = self._place.accelerator
        mine = share(self._order.batch(number), accelerator.process_index, accelerator.num_processes)
        packed = Packed.of(self._tokens.pick(mine), self._place.budget(self._table))
        return Batch((packed,), () if self._table.loss.w_tokens else (self._teacher.pick(mine),))

    def forward(self, batch: Batch) -> Tensor:
        """The mean over this process's texts."""
        (packed,), how = batch.texts, self._table.loss
        vectors_are = how.model_dump(exclude={"w_tokens"})
        if not how.w_tokens:
            (teacher_BD,) = batch.beside
            return alignment(encode(self.student, packed, self._table, raw=True), teacher_BD, **vectors_are)
        student_BD, teacher_BD, gap_B = self._side_by_side(packed)
        return alignment(student_BD, teacher_BD, **vectors_are) + how.w_tokens * gap_B.mean()

    def _side_by_side(self, packed: Packed) -> tuple[Tensor, Tensor, Tensor]:
        """The student's vectors, the teacher's, and how far apart their tokens are; texts in any one order."""
        (teacher,) = self._beside
        found: list[tuple[Tensor, Tensor, Tensor]] = []
        with arithmetic(packed, self._table):
            for ids, mask in packed.pieces:
                hidden_BLD = self.student.hidden(ids, mask)
                with torch.no_grad():
                    target_BLD = teacher.hidden(ids, mask)
                    target_BD = teacher.pooled(target_BLD, mask)
                gap_B = token_gap(hidden_BLD.float(), target_BLD.float(), mask)
                found.append((self.student.pooled(hidden_BLD, mask), target_BD, gap_B))
        student_BD, teacher_BD, gap_B = (torch.cat(parts).float() for parts in zip(*found, strict=True))
        return student_BD, teacher_BD, gap_B

    def finish(self) -> Trained:
        """The student joins the document tower's space."""
        spec = self.student.spec.model_copy(update={"name": f"{self._place.name}-query"})
        self.student.spec = spec.aligned_to(self._space)
        return Trained(query=self.student)


def _require_same_tokens(student: Tower, teacher: Tower) -> None:
    """Token by token, only towers can be compared that cut a text alike, with hidden states of one width."""
    facts = [
        (tower.tokens.hash, tower.spec.special_tokens, tower.spec.role("query"), tower.backbone.config.hidden_size)
        for tower in (student, teacher)
    ]
    if facts[0] != facts[1]:
        raise WrongUse(
            f"w_tokens compares '{student.spec.name}' and its teacher '{teacher.spec.name}' token by token, but they "
            "differ in tokenizer, query prefix or length, or width; give `layers`, or leave w_tokens out"
        )


def _student(table: DistilQuery, start: Towers) -> Tower:
    """A tower for queries alone, with vectors of the document tower's size and similarity."""
    space = start.document.spec
    origin = Tower.load(table.student) if table.student else start.query.cut(table.layers or ())
    spec = origin.spec
    head = origin.head
    if spec.dim != space.dim:
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
