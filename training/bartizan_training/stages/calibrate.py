"""A sparse tower whose terms count by how far they rise above their usual height: a bias for each term, from texts.

A causal language model gives nearly every term a positive logit, and the same terms for every text. What is usual is
taken off: a term's bias is lowered by a quantile of its greatest logits over many documents, so that it stays active in
about a share 1 - quantile of them. Nothing is trained.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from bartizan_connector.base.errors import WrongUse
from bartizan_encoders.language_model import LanguageModelHead
from bartizan_encoders.tower import Tower
from bartizan_training.artefacts import Kind
from bartizan_training.data.packing import Packed
from bartizan_training.data.texts import read_texts
from bartizan_training.data.token_table import TokenTable
from bartizan_training.embedding import arithmetic
from bartizan_training.settings import Positive, TextSource
from bartizan_training.step import FromTowers, MakingStep, Place, Taken, suited, under_key
from bartizan_training.towers import PlannedTower, Towers, TrainedTowers


class Calibrate(FromTowers, MakingStep):
    """Its table in a recipe."""

    kind: Literal["calibrate"]
    """`calibrate`"""
    texts: Annotated[tuple[TextSource, ...], Field(min_length=1)]
    """Documents, from one or more sources, by which a term's usual height is judged."""
    count: Positive = 512
    """Texts that are looked at, drawn at random."""
    quantile: Annotated[float, Field(gt=0, lt=1)] = 0.97
    """The height of a term below which this share of the texts stay; it is taken off."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic inside the tower."""

    gives: ClassVar[Kind] = "towers"

    def plan(self, name: str, towers: Mapping[str, PlannedTower]) -> Mapping[str, PlannedTower]:
        """The same sparse tower with a bias."""
        document, query = towers["document"], towers["query"]
        if document.tower != query.tower:
            raise WrongUse("calibration takes one tower for both roles, but the query tower is another one")
        spec = document.spec
        if (spec.kind, spec.pooling) != ("sparse", "max"):
            raise WrongUse(
                f"tower '{spec.name}' is {spec.kind} ({spec.pooling}); only sparse ones with max have heights"
            )
        tower = document.trained_in(name, space=name, roles=("document", "query"))
        return {"document": tower, "query": tower}

    def check_data(self, seed: tuple[int, int], processes: int) -> None:
        """Texts."""
        with under_key("texts"):
            read_texts(self.texts, seed=seed)

    def made_from(self) -> dict[str, Any]:
        """The settings, and what the texts are."""
        texts = read_texts(self.texts, seed=(0,))
        return super().made_from() | {"data": hashlib.sha256(json.dumps(texts).encode()).hexdigest()}

    def make(self, taken: Taken, place: Place, folder: Path) -> None:
        """The tower with its new bias."""
        if not place.accelerator.is_main_process:
            return
        texts = read_texts(self.texts, seed=place.seed)
        drawn = np.random.default_rng(place.seed).permutation(len(texts))[: self.count]
        tower = Towers.load(taken["document"], taken["query"]).document.to(place.accelerator.device)
        calibrate(tower, [texts[n] for n in drawn], self.quantile, self.precision)
        tower = tower.cpu()
        tower.spec = tower.spec.model_copy(update={"name": place.name, "top_terms": None})
        TrainedTowers(tower, tower).save(folder)


@torch.no_grad()
def calibrate(tower: Tower, texts: Sequence[str], quantile: float, precision: str = "fp32") -> None:
    """Lower the bias of each term by that quantile of its greatest logits over the texts, where it is above 0."""
    head = tower.head
    assert isinstance(head, LanguageModelHead)
    table = TokenTable(tower.tokens, "document", texts)
    device = head.weight.device
    packed = Packed.of(table.pick(np.arange(len(table))), suited(device)).to(device)
    with arithmetic(packed, precision):
        heights = [head.greatest(tower.hidden(ids, mask).float(), mask).float() for ids, mask in packed.pieces]
    usual_V: Tensor = torch.cat(heights).kthvalue(max(1, round(quantile * len(texts))), dim=0).values
    bias_V = torch.zeros_like(usual_V) if head.bias is None else head.bias
    head.bias = nn.Parameter(bias_V - usual_V)
