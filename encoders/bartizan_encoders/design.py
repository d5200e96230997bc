"""Design: what a person decides about a new tower."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Self

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.space.spec import Attention, Kind, Role, RoleSpec, TowerSpec
from bartizan_encoders.pooling import Pooling


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """What a person decides about a new tower; the rest of its spec follows from its parts.

    A dense tower pools the hidden states, then a linear head may follow. A sparse tower weighs each token's terms by
    the head of a language model, then pools: the order follows from the kind.
    """

    name: str
    roles: Mapping[Role, RoleSpec]
    kind: Kind = "dense"
    pooling: Pooling = "mean"
    normalise: bool = True
    similarity: Literal["cosine", "dot"] = "cosine"
    special_tokens: Literal["template", "none"] = "template"
    attention: Attention = "published"
    echo: bool = False
    top_terms: int | None = None

    def __post_init__(self) -> None:
        if self.kind == "sparse" and (self.normalise or self.similarity != "dot"):
            raise WrongUse(
                "a sparse tower keeps its weights as they are: expected normalise = False and similarity 'dot', "
                f"got {self.normalise} and {self.similarity!r}; Design.sparse sets both"
            )

    @classmethod
    def sparse(
        cls,
        *,
        name: str,
        roles: Mapping[Role, RoleSpec],
        pooling: Pooling = "max",
        special_tokens: Literal["template", "none"] = "template",
        attention: Attention = "published",
        echo: bool = False,
        top_terms: int | None = None,
    ) -> Self:
        """The design of a learned sparse tower."""
        return cls(
            name=name,
            roles=roles,
            kind="sparse",
            pooling=pooling,
            normalise=False,
            similarity="dot",
            special_tokens=special_tokens,
            attention=attention,
            echo=echo,
            top_terms=top_terms,
        )

    @classmethod
    def of(cls, spec: TowerSpec, *, name: str) -> Self:
        """The decisions behind a tower that is there."""
        return cls(
            name=name,
            roles=spec.roles,
            kind=spec.kind,
            pooling=spec.pooling,
            normalise=spec.normalise,
            similarity=spec.similarity,
            special_tokens=spec.special_tokens,
            attention=spec.attention,
            echo=spec.echo,
            top_terms=spec.top_terms,
        )
