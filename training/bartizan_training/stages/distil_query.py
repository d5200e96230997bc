"""Query distillation (ScalingNote's QKD): a small query tower learns to put queries where the large one puts them.

Only query texts are needed: no documents, no labels. The teacher and the document tower are frozen; what the student
makes can be searched for in the index that the document tower built.
"""

import hashlib
import json
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from torch import Tensor, nn

from bartizan_encoders.tower import Design, Tower
from bartizan_training.data import read_texts
from bartizan_training.frozen import Frozen, freeze
from bartizan_training.losses import alignment
from bartizan_training.packing import Packed, TokenTable
from bartizan_training.sampler import Order, share
from bartizan_training.settings import Alignment, RecipePath, TextSource, Training
from bartizan_training.stages.stage import Batch, Place, Stage, Towers, Trained, capped, encode


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
    """Trains the student alone: the teacher has already said where every text belongs."""

    def __init__(self, table: DistilQuery, start: Towers, place: Place) -> None:
        super().__init__()
        self._table, self._place = table, place
        self._space = start.document.spec
        self.student = _student(table, start)
        texts = read_texts(table.texts, seed=place.seed)
        self.fingerprint = hashlib.sha256(json.dumps(texts).encode()).hexdigest()
        self._order = Order(len(texts), table.batch_size, seed=place.seed)
        self.batches_per_epoch = self._order.batches_per_epoch
        self._teacher = freeze(Frozen(tower=start.query, role="query", texts=texts, raw=True), table, place)
        self._tokens = TokenTable(capped(self.student, table), "query", texts)

    def batch(self, number: int) -> Batch:
        """This process's texts, and where the teacher puts them."""
        accelerator = self._place.accelerator
        mine = share(self._order.batch(number), accelerator.process_index, accelerator.num_processes)
        packed = Packed.of(self._tokens.pick(mine), self._table.padded_tokens)
        return Batch((packed,), (self._teacher.pick(mine),))

    def forward(self, batch: Batch) -> Tensor:
        """The mean over this process's texts."""
        (teacher_BD,) = batch.beside
        student_BD = encode(self.student, batch.texts[0], self._table, raw=True)
        return alignment(student_BD, teacher_BD, **self._table.loss.model_dump())

    def finish(self) -> Trained:
        """The student joins the document tower's space."""
        spec = self.student.spec.model_copy(update={"name": f"{self._place.name}-query"})
        self.student.spec = spec.aligned_to(self._space)
        return Trained(query=self.student)


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
