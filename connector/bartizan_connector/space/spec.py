"""TowerSpec: everything that can change a tower's vectors, as one value with one identity.

`tower_id` is a hash over exactly the facts that can change a vector. `space_id` names the space the vectors live in:
a document tower's own `tower_id`, or, for a tower that was aligned to another (a distilled query tower, a quantised
export), the space it inherited. Vectors of two spaces never meet; every seam calls `require_same_space` first.

A fact may be added at any time, with a default that means "as before", and without touching `founding`: towers made
earlier keep their identity, and their files open (see `canonical`).
"""

import json
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from bartizan_connector.base.errors import SpaceMismatch, Stop, WrongUse
from bartizan_connector.base.paths import AnyPath, as_path
from bartizan_connector.space.canonical import canonical_facts, digest_of

Role = Literal["query", "document"]
Kind = Literal["dense", "sparse"]
Attention = Literal["published", "bidirectional"]
Precision = Literal["fp32", "bf16", "fp16", "int8"]

SPEC_FILE = "tower.json"
_HASH_DOMAIN = "bartizan.tower/1"
_SEAL_DOMAIN = "bartizan.seal/1"
_FACTS_THAT_CHANGE_NO_VECTOR = frozenset({"name", "space"})

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class RoleSpec(BaseModel):
    """How a text is prepared when it plays this role."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    founding: ClassVar[frozenset[str]] = frozenset({"prefix", "max_tokens"})

    prefix: str = ""
    max_tokens: Annotated[int, Field(ge=1)]


class TowerSpec(BaseModel):
    """What a tower promises about its vectors; frozen, and saved as JSON beside the weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    founding: ClassVar[frozenset[str]] = frozenset(
        {"name", "kind", "dim", "pooling", "head", "normalise", "similarity", "roles", "special_tokens"}
        | {"tokenizer_hash", "architecture_hash", "weights_hash", "precision", "space"}
    )
    """Never changed: a fact that comes later is none of these."""

    name: Annotated[str, Field(min_length=1)]
    kind: Kind = "dense"
    dim: Annotated[int, Field(ge=1)]
    """Length of a dense vector; size of the vocabulary of a sparse one."""
    pooling: Literal["cls", "mean", "last", "max", "sum"]
    head: Literal["none", "linear", "lm"] = "none"
    normalise: bool = True
    similarity: Literal["cosine", "dot"] = "cosine"
    roles: Annotated[dict[Role, RoleSpec], Field(min_length=1)]
    """The roles that the tower can play; a distilled query tower has no `document`."""
    special_tokens: Literal["template", "none"] = "template"
    """`template`: as the tokenizer's own template says; `none`: the bare pieces."""
    tokenizer_hash: Digest
    architecture_hash: Digest
    weights_hash: Digest
    precision: Precision = "fp32"
    space: str | None = None
    """The inherited space; None: the tower's own."""
    attention: Attention = "published"
    """Whether a decoder's tokens see all of the text, or what their model was published to let them see."""
    echo: bool = False
    """Whether a text is read twice, so that each token of the second copy, which alone counts, has seen all of it."""
    top_terms: Annotated[int, Field(ge=1)] | None = None
    """How many terms a sparse vector keeps, the heaviest; None: all."""

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.similarity == "cosine" and not self.normalise:
            raise ValueError("similarity 'cosine' needs normalise = true; use similarity 'dot' for raw vectors")
        if self.kind == "sparse" and self.normalise:
            raise ValueError("a sparse tower keeps its weights as they are: normalise = false, similarity = 'dot'")
        if self.top_terms is not None and self.kind != "sparse":
            raise ValueError("only a sparse tower has terms to keep: leave top_terms out")
        return self

    @property
    def tower_id(self) -> str:
        """Identity of the vectors: equal exactly when every vector is."""
        facts = {key: fact for key, fact in canonical_facts(self).items() if key not in _FACTS_THAT_CHANGE_NO_VECTOR}
        return f"tw-{digest_of(facts, domain=_HASH_DOMAIN)[:32]}"

    @property
    def space_id(self) -> str:
        """The space in which the vectors may be compared."""
        return self.space or self.tower_id

    def role(self, role: Role) -> RoleSpec:
        """How this tower prepares a text for `role`; a tower that cannot play it is refused."""
        if role not in self.roles:
            able = ", ".join(sorted(self.roles))
            raise WrongUse(
                f"tower '{self.name}' encodes {able} only, but was asked for {role} vectors; "
                f"use the {role} tower of space {self.space_id}"
            )
        return self.roles[role]

    def aligned_to(self, document: "TowerSpec") -> Self:
        """This tower as one that was trained to put its vectors into `document`'s space."""
        for fact in ("kind", "dim", "similarity"):
            mine, theirs = getattr(self, fact), getattr(document, fact)
            if mine != theirs:
                raise SpaceMismatch(
                    f"tower '{self.name}' has {fact} {mine!r}, the space has {theirs!r}",
                    expected=document.space_id,
                    came=self.space_id,
                    way_out=f"Train the tower with {fact} = {theirs!r}.",
                )
        return self.model_copy(update={"space": document.space_id})

    def at_precision(self, precision: Precision) -> Self:
        """This tower with its weights stored more coarsely: other vectors, same space (guarded by the export gate)."""
        if precision == self.precision:
            return self
        return self.model_copy(update={"precision": precision, "space": self.space_id})

    def to_json(self) -> str:
        """The spec with both identities and a seal that shows any later edit."""
        facts = canonical_facts(self)
        sealed = facts | {"tower_id": self.tower_id, "space_id": self.space_id}
        return json.dumps(sealed | {"seal": _seal(sealed)}, indent=2, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str | bytes, *, origin: str) -> Self:
        """Read a sealed spec; one that was edited by hand is refused as another space."""
        try:
            facts = json.loads(text)
            if not isinstance(facts, dict):
                raise TypeError(f"expected a JSON object, got {type(facts).__name__}")
            claimed = {key: facts.pop(key) for key in ("tower_id", "space_id", "seal")}
            spec = cls.model_validate(facts)
        except KeyError as error:
            raise Stop(f"{origin} has no {error}: it is not a tower's spec; import or train the tower again") from error
        except ValidationError as error:
            raise _unreadable(error, facts | claimed, origin) from error
        except (ValueError, TypeError) as error:
            raise Stop(f"{origin} is not a readable tower spec: {error}; import or train the tower again") from error
        if json.loads(spec.to_json()) != facts | claimed:
            raise SpaceMismatch(
                f"{origin} was changed after it was written",
                expected=str(claimed["tower_id"]),
                came=spec.tower_id,
                way_out="A spec is never edited: import or train the tower again with the setting you want.",
            )
        return spec

    def write(self, folder: Path) -> None:
        """Save the spec beside the weights."""
        (folder / SPEC_FILE).write_text(self.to_json() + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: AnyPath) -> Self:
        """Load the spec of the tower or export in `folder`."""
        path = as_path(folder, "a tower's folder") / SPEC_FILE
        try:
            text = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise WrongUse(f"{folder} is not a tower: it has no {SPEC_FILE}") from error
        return cls.from_json(text, origin=str(path))


def require_same_space(what: str, *, expected: str, came: str, way_out: str) -> None:
    """Refuse unless both sides live in one space."""
    if expected != came:
        raise SpaceMismatch(what, expected=expected, came=came, way_out=way_out)


def _seal(sealed: dict[str, Any]) -> str:
    return digest_of(sealed, domain=_SEAL_DOMAIN)


def _unreadable(error: ValidationError, written: dict[str, Any], origin: str) -> Stop:
    """Why a spec with both identities and a seal cannot be read: where the seal is whole, who wrote it knew more."""
    unknown = ", ".join(".".join(map(str, problem["loc"])) or str(problem["msg"]) for problem in error.errors())
    if written["seal"] == _seal({key: fact for key, fact in written.items() if key != "seal"}):
        refusal = Stop(
            f"{origin} was written by a newer Bartizan: this version does not know {unknown}; "
            "upgrade bartizan-search, or export the tower again with this version"
        )
        refusal.way_out = "upgrade bartizan-search"
        return refusal
    return Stop(f"{origin} is not a readable tower spec: {error}; import or train the tower again")
