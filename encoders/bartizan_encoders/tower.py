"""Tower: a backbone, a pooling and a head that turn token ids into vectors, and the spec that they answer to."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from bartizan_connector.base.aside import folder_aside
from bartizan_connector.base.errors import SpaceMismatch, Stop, WrongUse
from bartizan_connector.space.spec import Role, RoleSpec, TowerSpec
from bartizan_connector.space.tokens import Tokens
from bartizan_encoders import backbone as backbones
from bartizan_encoders.backbone import CONFIG_FILE, Architecture, architecture_hash
from bartizan_encoders.pooling import POOLINGS, Pooling
from bartizan_encoders.weights import WEIGHTS_FILE, read_weights, state_of, weights_hash, write_weights

_BACKBONE = "backbone."
_HEAD = "head."
_SHORTEST = 1e-12
"""A vector of zeros stays one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """What a person decides about a new tower; the rest of its spec follows from its parts."""

    name: str
    roles: Mapping[Role, RoleSpec]
    pooling: Pooling = "mean"
    normalise: bool = True
    similarity: Literal["cosine", "dot"] = "cosine"
    special_tokens: Literal["template", "none"] = "template"


class Tower(nn.Module):
    """Token ids in, one vector a text out; always in fp32, dropout off until `.train()` is called."""

    def __init__(
        self,
        backbone: PreTrainedModel,
        head: nn.Linear | None,
        *,
        architecture: Architecture,
        tokens: Tokens,
        spec: TowerSpec,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.architecture = dict(architecture)
        self.tokens = tokens
        self._spec = spec

    @classmethod
    def assemble(
        cls,
        backbone: PreTrainedModel,
        head: nn.Linear | None,
        *,
        architecture: Architecture,
        tokenizer: str,
        design: Design,
    ) -> Self:
        """A new tower from its parts; `tokenizer` is the text of a tokenizer.json."""
        tokens = Tokens(tokenizer, roles=design.roles, special_tokens=design.special_tokens)
        parts = nn.ModuleDict({"backbone": backbone} | ({"head": head} if head else {}))
        spec = TowerSpec(
            name=design.name,
            dim=head.out_features if head else backbone.config.hidden_size,
            pooling=design.pooling,
            head="linear" if head else "none",
            normalise=design.normalise,
            similarity=design.similarity,
            roles=dict(design.roles),
            special_tokens=design.special_tokens,
            tokenizer_hash=tokens.hash,
            architecture_hash=architecture_hash(architecture),
            weights_hash=weights_hash(state_of(parts)),
        )
        return cls(backbone, head, architecture=architecture, tokens=tokens, spec=spec).eval()

    @classmethod
    def fresh(cls, architecture: Architecture, tokenizer: str, design: Design, *, dim: int | None = None) -> Self:
        """A tower with random weights (seed torch first); `dim` adds a linear head to that size."""
        backbone = backbones.build(architecture)
        head = nn.Linear(backbone.config.hidden_size, dim) if dim else None
        return cls.assemble(backbone, head, architecture=architecture, tokenizer=tokenizer, design=design)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a tower; a file that does not belong to its spec is refused."""
        spec = TowerSpec.read(folder)
        tokens = Tokens.read(folder, spec)
        config_path, weights_path = folder / CONFIG_FILE, folder / WEIGHTS_FILE
        try:
            architecture = backbones.parse(config_path.read_bytes(), origin=str(config_path))
        except FileNotFoundError as error:
            raise Stop(f"{folder} has no {CONFIG_FILE}: an export cannot be loaded as a tower, only run") from error
        _require(config_path, spec, spec.architecture_hash, architecture_hash(architecture))
        state = read_weights(folder)
        _require(weights_path, spec, spec.weights_hash, weights_hash(state))
        backbone = backbones.load(architecture, _under(state, _BACKBONE), origin=str(weights_path))
        head = _head(_under(state, _HEAD)) if spec.head == "linear" else None
        return cls(backbone, head, architecture=architecture, tokens=tokens, spec=spec).eval()

    def save(self, folder: Path) -> TowerSpec:
        """Write the tower, all or nothing; a folder that holds anything else than a tower is refused."""
        spec = self.spec
        with folder_aside(folder, marker=WEIGHTS_FILE) as fresh:
            write_weights(fresh, state_of(self))
            (fresh / CONFIG_FILE).write_text(json.dumps(self.architecture, indent=2, sort_keys=True) + "\n", "utf-8")
            self.tokens.write(fresh)
            spec.write(fresh)
        return spec

    @property
    def spec(self) -> TowerSpec:
        """The spec of the present weights (hashed now). An inherited space is a promise about the weights that it was
        given for: when they have changed since, the tower is on its own again until it is aligned anew."""
        present = weights_hash(state_of(self))
        if present == self._spec.weights_hash:
            return self._spec
        return self._spec.model_copy(update={"weights_hash": present, "space": None})

    @spec.setter
    def spec(self, spec: TowerSpec) -> None:
        present = self.spec
        fixed = {"kind", "dim", "head", "tokenizer_hash", "architecture_hash", "weights_hash", "precision"}
        if spec.model_dump(include=fixed) != present.model_dump(include=fixed):
            raise SpaceMismatch(
                f"a spec of other parts was given to tower '{present.name}'",
                expected=present.tower_id,
                came=spec.tower_id,
                way_out="Derive the new spec from the tower's present one.",
            )
        if (spec.roles, spec.special_tokens) != (present.roles, present.special_tokens):
            self.tokens = self.tokens.serving(spec.roles, spec.special_tokens)
        self._spec = spec

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Vectors [B, dim] of token ids [B, L]; the mask is 1 for a token, 0 for padding on the right."""
        vectors_BD = self.raw(input_ids, attention_mask)
        if not self._spec.normalise:
            return vectors_BD
        length_B1: Tensor = torch.linalg.vector_norm(vectors_BD, dim=-1, keepdim=True)
        return vectors_BD / length_B1.clamp_min(_SHORTEST)  # as F.normalize, but two operators fewer in a graph

    def raw(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The vectors before normalisation: what a student may be taught to match."""
        return self.pooled(self.hidden(input_ids, attention_mask), attention_mask)

    def hidden(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The backbone's last hidden states [B, L, D], padding included."""
        hidden_BLD: Tensor = self.backbone(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return hidden_BLD

    def pooled(self, hidden_BLD: Tensor, attention_mask: Tensor) -> Tensor:
        """The vectors before normalisation out of the last hidden states."""
        vectors_BD: Tensor = POOLINGS[self._spec.pooling](hidden_BLD, attention_mask)
        return self.head(vectors_BD) if self.head is not None else vectors_BD

    def cut(self, layers: Sequence[int]) -> "Tower":
        """A copy that keeps only these layers of the backbone, beside embeddings and head: a student to distil into."""
        architecture, state = backbones.cut(self.architecture, _under(state_of(self), _BACKBONE), layers)
        try:
            backbone = backbones.load(architecture, _copied(state), origin="the cut tower")
        except Stop as error:
            raise WrongUse(
                f"a {self.architecture['model_type']} cannot do with layers {list(layers)}: {error}"
            ) from error
        head = _head(_copied(self.head.state_dict())) if self.head else None
        design = Design(
            name=f"{self._spec.name}-{len(layers)}-layers",
            roles=self._spec.roles,
            pooling=self._spec.pooling,
            normalise=self._spec.normalise,
            similarity=self._spec.similarity,
            special_tokens=self._spec.special_tokens,
        )
        return Tower.assemble(backbone, head, architecture=architecture, tokenizer=self.tokens.text, design=design)


def _under(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def _copied(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in state.items()}


def _head(state: Mapping[str, Tensor]) -> nn.Linear:
    rows, columns = state["weight"].shape
    head = nn.Linear(columns, rows, bias="bias" in state, device="meta")
    head.load_state_dict(dict(state), assign=True)
    return head.requires_grad_(True)


def _require(path: Path, spec: TowerSpec, expected: str, came: str) -> None:
    if expected != came:
        raise SpaceMismatch(
            f"{path} does not belong to the spec beside it (expected hash {expected[:12]}…, got {came[:12]}…): "
            "it was edited or replaced",
            expected=spec.space_id,
            came="a tower of other files",
            way_out="Put the original file back, or import or train the tower again.",
        )
