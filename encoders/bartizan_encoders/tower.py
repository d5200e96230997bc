"""Tower: a backbone, a pooling and a head that turn token ids into vectors, and the spec that they answer to."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from bartizan_connector.base.aside import folder_aside
from bartizan_connector.base.errors import SpaceMismatch, Stop, WrongUse
from bartizan_connector.base.paths import AnyPath, as_path
from bartizan_connector.space.spec import Precision, TowerSpec
from bartizan_connector.space.tokens import Tokens
from bartizan_encoders import backbone as backbones
from bartizan_encoders import language_model
from bartizan_encoders.attention import see_all, sees_later_tokens, twice
from bartizan_encoders.backbone import CONFIG_FILE, Architecture, architecture_hash
from bartizan_encoders.design import Design
from bartizan_encoders.language_model import LanguageModelHead
from bartizan_encoders.pooling import POOLINGS
from bartizan_encoders.present import PresentWeights
from bartizan_encoders.sparse_head import heaviest
from bartizan_encoders.weights import WEIGHTS_FILE, read_weights, state_of, weights_hash, write_weights

_BACKBONE = "backbone."
_HEAD = "head."
_SHORTEST = 1e-12
"""A vector of zeros stays one."""

Head = nn.Linear | LanguageModelHead

PRECISIONS: Mapping[torch.dtype, Precision] = {torch.float32: "fp32", torch.bfloat16: "bf16"}
DTYPES = {precision: dtype for dtype, precision in PRECISIONS.items()}
"""What a backbone's weights can be kept as; pooling, head and normalisation are computed in fp32 always."""


class Tower(nn.Module):
    """Token ids in, one vector a text out, in fp32; dropout off until `.train()` is called.

    Dense: backbone, pooling, linear head if any, normalisation. Sparse: backbone, the head of its language model on
    every token, pooling; a vector is then as wide as the vocabulary, and `sparse_rows` keeps of it what is not zero.
    """

    def __init__(
        self,
        backbone: PreTrainedModel,
        head: Head | None,
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
        self._present = PresentWeights()
        self._looks_back: bool | None = None
        if spec.attention == "bidirectional":
            see_all(backbone)

    @classmethod
    def assemble(
        cls,
        backbone: PreTrainedModel,
        head: Head | None,
        *,
        architecture: Architecture,
        tokenizer: str,
        design: Design,
    ) -> Self:
        """A new tower from its parts; `tokenizer` is the text of a tokenizer.json."""
        if isinstance(head, LanguageModelHead) != (design.kind == "sparse"):
            raise WrongUse(
                f"tower '{design.name}' is to be {design.kind}, but its head is {type(head).__name__}: a sparse tower "
                "takes the head of a language model, a dense one a linear head or none"
            )
        tokens = Tokens(tokenizer, roles=design.roles, special_tokens=design.special_tokens)
        parts = nn.ModuleDict({"backbone": backbone} | ({"head": head} if head else {}))
        spec = TowerSpec(
            name=design.name,
            kind=design.kind,
            dim=head.out_features if head else backbone.config.hidden_size,
            pooling=design.pooling,
            head="none" if head is None else "linear" if isinstance(head, nn.Linear) else "lm",
            normalise=design.normalise,
            similarity=design.similarity,
            roles=dict(design.roles),
            special_tokens=design.special_tokens,
            attention=design.attention,
            echo=design.echo,
            top_terms=design.top_terms,
            tokenizer_hash=tokens.hash,
            architecture_hash=architecture_hash(architecture),
            weights_hash=weights_hash(state_of(parts)),
            precision=_precision(backbone),
        )
        tower = cls(backbone, head, architecture=architecture, tokens=tokens, spec=spec).eval()
        tower._present.know(tower, spec.weights_hash)
        return tower

    @classmethod
    def fresh(cls, architecture: Architecture, tokenizer: str, design: Design, *, dim: int | None = None) -> Self:
        """A tower with random weights (seed torch first); `dim` adds a linear head to that size to a dense one."""
        head: Head | None = None
        if design.kind == "sparse":
            if dim is not None:
                raise WrongUse(f"a sparse tower is as wide as its vocabulary: leave dim = {dim} out")
            backbone, head = language_model.build(architecture)
        else:
            backbone = backbones.build(architecture)
            head = nn.Linear(backbone.config.hidden_size, dim) if dim else None
        return cls.assemble(backbone, head, architecture=architecture, tokenizer=tokenizer, design=design)

    @classmethod
    def load(cls, folder: AnyPath, *, dtype: torch.dtype | None = None) -> Self:
        """Read a tower; a file that does not belong to its spec is refused. `dtype` keeps the backbone in another
        precision than it was saved in: that is another tower in the same space, and its spec says so."""
        folder = as_path(folder, "a tower's folder")
        spec = TowerSpec.read(folder)
        tokens = Tokens.read(folder, spec)
        config_path, weights_path = folder / CONFIG_FILE, folder / WEIGHTS_FILE
        try:
            architecture = backbones.parse(config_path.read_bytes(), origin=str(config_path))
        except FileNotFoundError as error:
            raise WrongUse(f"{folder} has no {CONFIG_FILE}: an export cannot be loaded as a tower, only run") from error
        _require(config_path, spec, spec.architecture_hash, architecture_hash(architecture))
        state = read_weights(folder)
        _require(weights_path, spec, spec.weights_hash, weights_hash(state))
        kept = DTYPES[spec.precision] if dtype is None else dtype
        origin = str(weights_path)
        backbone = backbones.load(architecture, _under(state, _BACKBONE), origin=origin, dtype=kept)
        head = _head(spec.head, _under(state, _HEAD), backbone, origin=origin)
        tower = cls(backbone, head, architecture=architecture, tokens=tokens, spec=spec).eval()
        if DTYPES[spec.precision] == kept:
            tower._present.know(tower, spec.weights_hash)
        else:
            moved = spec.at_precision(_precision(backbone))
            tower._spec = moved.model_copy(update={"weights_hash": tower._present.hash_of(tower)})
        return tower

    def save(self, folder: Path) -> TowerSpec:
        """Write the tower, all or nothing; a folder that holds anything else than a tower is refused."""
        self._present.forget()  # what is written must answer to its hash, whatever was done to the weights
        spec = self.spec
        with folder_aside(folder, marker=WEIGHTS_FILE) as fresh:
            write_weights(fresh, state_of(self))
            (fresh / CONFIG_FILE).write_text(json.dumps(self.architecture, indent=2, sort_keys=True) + "\n", "utf-8")
            self.tokens.write(fresh)
            spec.write(fresh)
        return spec

    @property
    def spec(self) -> TowerSpec:
        """The spec of the present weights, hashed anew when one may have changed. An inherited space is a promise about
        the weights that it was given for: after a change the tower is on its own until it is aligned anew."""
        present, precision = self._present.hash_of(self), _precision(self.backbone)
        if (present, precision) == (self._spec.weights_hash, self._spec.precision):
            return self._spec
        return self._spec.model_copy(update={"weights_hash": present, "precision": precision, "space": None})

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
        if spec.attention != present.attention:
            if spec.attention == "published":
                raise WrongUse(f"tower '{present.name}' was made to see all of a text; load it as published for causal")
            see_all(self.backbone)
            self._looks_back = None
        self._spec = spec

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Where torch moves or casts a module. A cast would take head and position angles along."""
        if fn(torch.empty(0)).dtype in (torch.bfloat16, torch.float16):
            raise WrongUse("a tower is not cast as a whole: load it with Tower.load(folder, dtype=torch.bfloat16)")
        untyped: Any = super()
        moved: Self = untyped._apply(fn, recurse)
        return moved

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Vectors [B, dim] of token ids [B, L]; the mask is 1 for a token, 0 for padding on the right."""
        vectors_BD = self.raw(input_ids, attention_mask)
        if self._spec.top_terms is not None:
            return heaviest(vectors_BD, self._spec.top_terms)
        if not self._spec.normalise:
            return vectors_BD
        length_B1: Tensor = torch.linalg.vector_norm(vectors_BD, dim=-1, keepdim=True)
        return vectors_BD / length_B1.clamp_min(_SHORTEST)  # as F.normalize, but two operators fewer in a graph

    def raw(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The vectors before normalisation, all terms kept: what a student may be taught to match."""
        return self.pooled(self.hidden(input_ids, attention_mask), attention_mask)

    def hidden(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The backbone's last hidden states [B, L, D], padding included; of the second copy where a text is read
        twice."""
        if self._spec.echo:
            ids_BM, mask_BM, second_BL = twice(input_ids, attention_mask)
            both_BMD: Tensor = self.backbone(input_ids=ids_BM, attention_mask=self._seen(mask_BM)).last_hidden_state
            return both_BMD.gather(1, second_BL.unsqueeze(-1).expand(-1, -1, both_BMD.shape[-1]))
        seen = self._seen(attention_mask)
        hidden_BLD: Tensor = self.backbone(input_ids=input_ids, attention_mask=seen).last_hidden_state
        return hidden_BLD

    def _seen(self, attention_mask: Tensor) -> Tensor | None:
        """What the backbone is told of padding. Where tokens only look back, none sees what is padded on the right; a
        CUDA device is told nothing then, as it has faster kernels for attention without a mask."""
        if attention_mask.device.type != "cuda":
            return attention_mask
        if self._looks_back is None:
            causal = language_model.is_causal(self.backbone.config) and self._spec.attention == "published"
            self._looks_back = causal and not sees_later_tokens(self.backbone)
        return None if self._looks_back else attention_mask

    def pooled(self, hidden_BLD: Tensor, attention_mask: Tensor) -> Tensor:
        """The vectors before normalisation out of the last hidden states."""
        if hidden_BLD.dtype in (torch.bfloat16, torch.float16):
            hidden_BLD = hidden_BLD.float()
        if isinstance(self.head, LanguageModelHead):
            return self.head.pooled(hidden_BLD, attention_mask, self._spec.pooling)
        vectors_BD: Tensor = POOLINGS[self._spec.pooling](hidden_BLD, attention_mask)
        return self.head(vectors_BD) if self.head is not None else vectors_BD

    def cut(self, layers: Sequence[int]) -> "Tower":
        """A copy that keeps only these layers of the backbone, beside embeddings and head: a student to distil into."""
        architecture, state = backbones.cut(self.architecture, _under(state_of(self), _BACKBONE), layers)
        kept = next(self.backbone.parameters()).dtype
        try:
            backbone = backbones.load(architecture, _copied(state), origin="the cut tower", dtype=kept)
        except Stop as error:
            raise WrongUse(
                f"a {self.architecture['model_type']} cannot do with layers {list(layers)}: {error}"
            ) from error
        head = _head(self._spec.head, _copied(_under(state_of(self), _HEAD)), backbone, origin="the cut tower")
        design = Design.of(self._spec, name=f"{self._spec.name}-{len(layers)}-layers")
        return Tower.assemble(backbone, head, architecture=architecture, tokenizer=self.tokens.text, design=design)


def _under(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def _copied(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in state.items()}


def _head(kind: str, state: Mapping[str, Tensor], backbone: PreTrainedModel, *, origin: str) -> Head | None:
    if kind == "lm":
        return language_model.load(state, backbone, origin=origin)
    if kind == "none":
        return None
    rows, columns = state["weight"].shape
    head = nn.Linear(columns, rows, bias="bias" in state, device="meta")
    head.load_state_dict({name: tensor.float() for name, tensor in state.items()}, assign=True)
    return head.requires_grad_(True)


def _precision(backbone: PreTrainedModel) -> Precision:
    dtype = next(backbone.parameters()).dtype
    if dtype not in PRECISIONS:
        raise WrongUse(f"a tower's backbone is kept in one of {', '.join(PRECISIONS.values())}, not in {dtype}")
    return PRECISIONS[dtype]


def _require(path: Path, spec: TowerSpec, expected: str, came: str) -> None:
    if expected != came:
        raise SpaceMismatch(
            f"{path} does not belong to the spec beside it (expected hash {expected[:12]}…, got {came[:12]}…): "
            "it was edited or replaced",
            expected=spec.space_id,
            came="a tower of other files",
            way_out="Put the original file back, or import or train the tower again.",
        )
