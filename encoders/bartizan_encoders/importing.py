"""Import: a Hugging Face model, or a sentence-transformers one of the usual shape, becomes a dense or sparse tower."""

import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedModel

from bartizan_connector.base.errors import Stop, WrongUse
from bartizan_connector.space.spec import Attention, Kind, Role, RoleSpec
from bartizan_connector.space.tokens import Tokens
from bartizan_encoders import backbone as backbones
from bartizan_encoders import language_model
from bartizan_encoders.backbone import CONFIG_FILE, Architecture
from bartizan_encoders.design import Design
from bartizan_encoders.gguf import gguf_in, unpacked
from bartizan_encoders.hub import KNOWN, locate
from bartizan_encoders.layout import Layout, read_layout
from bartizan_encoders.pooling import Pooling
from bartizan_encoders.tower import DTYPES, Head, Tower
from bartizan_encoders.weights import read_weights

_DEFAULT_MOST_TOKENS = 512
"""For a model that could take more and whose publisher says nothing: attention grows with the square."""
_SHARE_WITHIN_TWO = 0.87962566103423978
"""Deviation of standard normal numbers that are cut at −2 and 2."""
_PROBES = ("", "Hello, world!", "Ünïcödé ÄÖÜ ß 東京 🙂", "A [SEP] b </s> c <pad>", "  two\n\tlines  ", "x" * 40)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What a person wants otherwise than the publisher says; None: as published."""

    name: str | None = None
    kind: Kind | None = None
    pooling: Pooling | None = None
    similarity: Literal["cosine", "dot"] | None = None
    max_tokens: int | None = None
    query_prefix: str | None = None
    document_prefix: str | None = None
    precision: Literal["fp32", "bf16"] = "fp32"
    """How the backbone's weights are kept, whatever they were published as; in bf16 the tower is another one."""
    special_tokens: Literal["template", "none"] | None = None
    attention: Attention | None = None
    echo: bool | None = None
    layers: Sequence[int] | None = None
    """Only these layers of the backbone, counted from 0."""
    dim: int | None = None
    """A dense tower gets a new linear head without bias to so many dimensions, as GTR has it; it is to be trained."""
    seed: int = 0
    """For the new head."""


def import_tower(source: str, wishes: Wishes = Wishes()) -> Tower:
    """A tower out of `minilm` or `smollm2`, a local folder or GGUF file, or the name of a model on the hub."""
    if wishes.name == "":
        raise WrongUse("the tower's name is empty; give it one, or leave it out")
    place = locate(source)
    file = gguf_in(place) if place.is_dir() else place
    name = KNOWN[source].name if source in KNOWN else Path(source).stem if file else Path(source).name
    with unpacked(file) if file else nullcontext(place) as folder:
        tower = _import(source, folder, wishes, name)
    if wishes.layers is None:
        return tower
    cut = tower.cut(wishes.layers)
    return cut if wishes.name is None else renamed(cut, wishes.name)


def renamed(tower: Tower, name: str) -> Tower:
    """The same tower under another name."""
    tower.spec = tower.spec.model_copy(update={"name": name})
    return tower


def _import(source: str, folder: Path, wishes: Wishes, name: str) -> Tower:
    layout = read_layout(folder)
    config_path = layout.transformer / CONFIG_FILE
    try:
        architecture = backbones.parse(config_path.read_bytes(), origin=str(config_path))
    except FileNotFoundError as error:
        raise WrongUse(f"{layout.transformer} has no {CONFIG_FILE}: it holds no Hugging Face model") from error
    kind = _kind(layout, wishes, source)
    backbone, head = _parts(layout, kind, architecture, wishes)
    tokenizer = _tokenizer(layout.transformer)
    special_tokens = wishes.special_tokens or "template"
    similarity = wishes.similarity or layout.similarity or ("dot" if kind == "sparse" else "cosine")
    roles = _roles(layout, wishes, _most_tokens(layout, wishes, backbone, tokenizer))
    tower = Tower.assemble(
        backbone,
        head,
        architecture=architecture,
        tokenizer=tokenizer.backend_tokenizer.to_str(),
        design=Design(
            name=wishes.name or name,
            roles=roles,
            kind=kind,
            pooling=wishes.pooling or layout.pooling or _default_pooling(kind, backbone.config),
            normalise=similarity == "cosine" or bool(layout.normalise),
            similarity=similarity,
            special_tokens=special_tokens,
            attention=wishes.attention or "published",
            echo=bool(wishes.echo),
        ),
    )
    _same_ids(tower.tokens, tokenizer, lower_case=layout.lower_case)
    return tower


def _kind(layout: Layout, wishes: Wishes, source: str) -> Kind:
    kind = wishes.kind or layout.kind or "dense"
    if layout.kind not in (None, kind):
        raise WrongUse(f"{source} is published as a {layout.kind} model and cannot become a {kind} tower")
    if kind == "sparse" and "cosine" in (wishes.similarity, layout.similarity):
        raise WrongUse("a sparse tower compares by 'dot': the lengths of its vectors count")
    return kind


def _parts(
    layout: Layout, kind: Kind, architecture: Architecture, wishes: Wishes
) -> tuple[PreTrainedModel, Head | None]:
    dtype = DTYPES[wishes.precision]
    if kind == "sparse":
        if wishes.dim is not None:
            raise WrongUse(f"a sparse tower is as wide as its vocabulary: leave dim = {wishes.dim} out")
        return language_model.pretrained(layout.transformer, architecture, dtype)
    backbone = backbones.pretrained(layout.transformer, architecture, dtype)
    head = _dense(layout.dense) if layout.dense else None
    if wishes.dim is None:
        return backbone, head
    if head is not None and head.out_features != wishes.dim:
        raise WrongUse(
            f"{layout.transformer} has a trained head to {head.out_features} dimensions: leave dim = {wishes.dim} out"
        )
    return backbone, head or _bottleneck(backbone.config.hidden_size, wishes.dim, wishes.seed)


def _bottleneck(width: int, dim: int, seed: int) -> nn.Linear:
    """GTR's fixed bottleneck before training: normal numbers cut at two deviations, of variance 1 / width."""
    head = nn.Linear(width, dim, bias=False)
    deviation = width**-0.5 / _SHARE_WITHIN_TWO
    source = torch.Generator().manual_seed(seed)
    nn.init.trunc_normal_(head.weight, std=deviation, a=-2 * deviation, b=2 * deviation, generator=source)
    return head


def _roles(layout: Layout, wishes: Wishes, most: int) -> dict[Role, RoleSpec]:
    wished: dict[Role, str | None] = {"query": wishes.query_prefix, "document": wishes.document_prefix}
    roles: dict[Role, RoleSpec] = {}
    for role in get_args(Role):
        prefix = wished[role]
        roles[role] = RoleSpec(prefix=layout.prefixes.get(role, "") if prefix is None else prefix, max_tokens=most)
    return roles


def _most_tokens(layout: Layout, wishes: Wishes, backbone: PreTrainedModel, tokenizer: Any) -> int:
    """The wish when the model can take it; else the publisher's choice; else the least of all limits."""
    capacity = _positions(backbone)
    if capacity is not None and wishes.echo:
        capacity //= 2  # a text is read twice
    if wishes.max_tokens is not None:
        if capacity is not None and wishes.max_tokens > capacity:
            raise WrongUse(f"max_tokens = {wishes.max_tokens}, but the model has positions for {capacity} tokens only")
        return wishes.max_tokens
    from_modules = layout.pooling is not None
    said = layout.max_tokens or (tokenizer.model_max_length if from_modules else _DEFAULT_MOST_TOKENS)
    known = [said, tokenizer.model_max_length, capacity]
    limits = [limit for limit in known if limit is not None and limit < 1_000_000]  # the library's "unlimited" is 1e30
    return int(min(limits, default=_DEFAULT_MOST_TOKENS))


def _positions(backbone: PreTrainedModel) -> int | None:
    """How many tokens the model has positions for; None: as many as one likes."""
    for name, module in backbone.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding) and module.padding_idx is not None:
            return (
                module.num_embeddings - module.padding_idx - 1
            )  # RoBERTa's family starts after the padding's position
    positions = getattr(backbone.config, "max_position_embeddings", None)
    return positions if isinstance(positions, int) and positions > 0 else None


def _default_pooling(kind: Kind, config: PreTrainedConfig) -> Pooling:
    """Mean for an encoder; for a decoder the last token, the only one that has seen the whole text. Each token of a
    sparse tower speaks for its own terms: the maximum."""
    if kind == "sparse":
        return "max"
    return "last" if language_model.is_causal(config) else "mean"


def _tokenizer(folder: Path) -> Any:
    try:
        with backbones.quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, ImportError) as error:
        raise Stop(f"{folder} holds no tokenizer that transformers can load: {error}") from error
    if not getattr(tokenizer, "is_fast", False):
        raise WrongUse(f"{folder}: {type(tokenizer).__name__} has no Rust form (tokenizer.json), which serving needs")
    return tokenizer


def _same_ids(tokens: Tokens, tokenizer: Any, *, lower_case: bool) -> None:
    """The tower must read texts as the published tokenizer does, which is called here the way its users call it."""
    role, most = next((role, spec.max_tokens) for role, spec in tokens.roles.items())
    prefix = tokens.roles[role].prefix
    for probe, ours in zip(_PROBES, tokens.encode(_PROBES, role), strict=True):
        text = prefix + probe
        with backbones.quiet_transformers():
            published = tokenizer(text.lower() if lower_case else text, add_special_tokens=tokens.adds_special)
        if any(published.get("token_type_ids", ())):
            raise WrongUse("this tokenizer marks a single text with token types, which towers do not keep")
        expected = published["input_ids"] or ours.ids
        if len(expected) <= most and ours.ids != expected:
            raise WrongUse(
                f"the tokenizer reads {text!r} as {expected}, its Rust form as {ours.ids}; it cannot be imported"
            )


def _dense(folder: Path) -> nn.Linear:
    """A sentence-transformers Dense module without an activation."""
    try:
        facts = json.loads((folder / CONFIG_FILE).read_bytes())
    except (OSError, ValueError) as error:
        raise Stop(f"{folder / CONFIG_FILE} cannot be read: {error}") from error
    activation = str(facts.get("activation_function", "torch.nn.modules.activation.Tanh")).rsplit(".", 1)[-1]
    if activation != "Identity" or facts.get("use_residual"):
        raise WrongUse(f"{folder} is a Dense module with {activation} or a residual; a tower's head is linear")
    state = _dense_state(folder)
    try:
        head = nn.Linear(facts["in_features"], facts["out_features"], bias=bool(facts.get("bias", True)))
        head.load_state_dict({name.removeprefix("linear."): tensor.float() for name, tensor in state.items()})
    except (KeyError, RuntimeError) as error:
        raise Stop(f"{folder}: the weights do not fit {CONFIG_FILE}: {error}") from error
    return head


def _dense_state(folder: Path) -> dict[str, Tensor]:
    pickled = folder / "pytorch_model.bin"
    if not pickled.exists():
        return read_weights(folder)
    try:
        state: dict[str, Tensor] = torch.load(pickled, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise Stop(f"{pickled} is damaged: {error}") from error
    return state
