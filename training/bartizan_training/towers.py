"""The two towers that a step starts from or ends with, and what is known of them before they are trained."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal, Self

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.space.spec import Role, RoleSpec, TowerSpec, require_same_space
from bartizan_encoders.backbone import CONFIG_FILE, configuration, parse
from bartizan_encoders.design import Design
from bartizan_encoders.importing import Wishes
from bartizan_encoders.language_model import is_causal
from bartizan_encoders.pooling import Pooling
from bartizan_encoders.tower import Head, Tower
from bartizan_training.settings import Imported

ROLES: tuple[Role, Role] = ("document", "query")


@dataclass(frozen=True, slots=True)
class Towers:
    """A document tower and a query tower of one space; one object when they are tied."""

    document: Tower
    query: Tower

    @classmethod
    def load(cls, document: Path, query: Path) -> Self:
        """Read both; towers of two spaces are refused."""
        same = require_one_space(document, query)
        tower = Tower.load(document)
        return cls(tower, tower if same else Tower.load(query))


@dataclass(frozen=True, slots=True)
class TrainedTowers:
    """What a stage made: the query tower, and the document tower, or where the one lies that stayed frozen."""

    query: Tower
    document: Tower | Path

    def save(self, folder: Path) -> None:
        """Write both; one that stayed as it was, or plays both roles, is linked."""
        self.query.save(folder / "query")
        if isinstance(self.document, Path):
            link(self.document, folder / "document")
        elif self.document is self.query:
            link(folder / "query", folder / "document")
        else:
            self.document.save(folder / "document")


def require_one_space(document: Path, query: Path) -> bool:
    """Refuse a query tower of another space; whether both are one tower."""
    specs = TowerSpec.read(document), TowerSpec.read(query)
    require_same_space(
        f"the query tower {query} does not belong to the document tower {document}",
        expected=specs[0].space_id,
        came=specs[1].space_id,
        way_out="Give a query tower that was trained with this document tower, or leave it out.",
    )
    return specs[0] == specs[1]


def link(tower: Path, folder: Path) -> None:
    """The tower under another name; a tower's files never change, so they may be shared where the disk allows it."""

    def link_or_copy(source: str, target: str) -> None:
        try:
            os.link(source, target)
        except OSError:
            shutil.copyfile(source, target)

    shutil.copytree(tower, folder, copy_function=link_or_copy)


def wishes(wanted: Imported, *, seed: int) -> Wishes:
    """What a recipe wants of a model that becomes a tower."""
    known = {field.name for field in fields(Wishes)}
    return Wishes(**{key: value for key, value in wanted if key in known and value is not None}, seed=seed)


def redesigned(
    tower: Tower,
    head: Head | None,
    *,
    name: str,
    pooling: Pooling,
    similarity: Literal["cosine", "dot"],
    lengths: Mapping[Role, int],
    together: int,
) -> Tower:
    """A dense tower over the same backbone, with another head, pooling, similarity or length of texts.

    `together` is the longest text that goes through the backbone; one that it has no positions for is refused.
    """
    most = getattr(tower.backbone.config, "max_position_embeddings", None)
    if most is not None and most < together:
        raise WrongUse(
            f"texts of {together} tokens are asked for, but '{tower.spec.name}' has positions for {most}: lower "
            "query_tokens or document_tokens"
        )
    spec = tower.spec
    prefixes = {role: how.prefix for role, how in spec.roles.items()}
    design = Design(
        name=name,
        roles={role: RoleSpec(prefix=prefixes.get(role, ""), max_tokens=length) for role, length in lengths.items()},
        pooling=pooling,
        normalise=similarity == "cosine",
        similarity=similarity,
        special_tokens=spec.special_tokens,
    )
    return Tower.assemble(
        tower.backbone, head, architecture=tower.architecture, tokenizer=tower.tokens.text, design=design
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedTower:
    """A tower as it is known before the run: its form, and which tower and space it will be."""

    spec: TowerSpec
    """Of the tower that it grows out of; only what training leaves as it is counts."""
    tower: str
    """Equal for one and the same tower."""
    space: str
    """Equal for towers of one space."""
    layers: int
    width: int
    causal: bool = False
    """Whether its backbone is a causal language model's."""
    folder: Path | None = None
    """Where the tower lies that it grows out of."""

    @classmethod
    def read(cls, folder: Path) -> Self:
        """A tower that is there already."""
        spec = TowerSpec.read(folder)
        path = folder / CONFIG_FILE
        try:
            config = configuration(parse(path.read_bytes(), origin=str(path)))
        except FileNotFoundError as error:
            raise WrongUse(f"{folder} has no {CONFIG_FILE}: an export cannot be trained; give the tower") from error
        return cls(
            spec=spec,
            tower=spec.tower_id,
            space=spec.space_id,
            layers=config.num_hidden_layers,
            width=config.hidden_size,
            causal=is_causal(config),
            folder=folder,
        )

    def trained_in(self, step: str, *, space: str, roles: tuple[Role, ...]) -> "PlannedTower":
        """What a step of that name makes of it."""
        spec = self.spec.model_copy(update={"roles": {role: self.spec.role(role) for role in roles}})
        return replace(self, spec=spec, tower=f"{step} {'+'.join(roles)}", space=space)
