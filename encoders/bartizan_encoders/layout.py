"""What the folder of a published model says about itself: plain Hugging Face, or sentence-transformers' modules."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from bartizan_connector.base.errors import Stop, WrongUse
from bartizan_connector.space.spec import SPEC_FILE, Kind, Role
from bartizan_encoders.pooling import Pooling

_POOLINGS: Mapping[str, Pooling] = {"cls": "cls", "mean": "mean", "max": "max", "lasttoken": "last"}
_LEGACY_POOLINGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_lasttoken": "lasttoken",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
}
_PROMPTS: Mapping[Role, tuple[str, ...]] = {"query": ("query",), "document": ("document", "passage", "corpus")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where the parts are, and what the publisher chose; None where nothing was said."""

    transformer: Path
    kind: Kind | None = None
    dense: Path | None = None
    pooling: Pooling | None = None
    normalise: bool | None = None
    similarity: Literal["cosine", "dot"] | None = None
    max_tokens: int | None = None
    lower_case: bool = False
    prefixes: Mapping[Role, str] = field(default_factory=dict)


def read_layout(folder: Path) -> Layout:
    """Read the folder; a module that a tower cannot hold is refused by name, never left out."""
    if (folder / SPEC_FILE).exists():
        raise WrongUse(f"{folder} is a Bartizan tower or an export already (it has {SPEC_FILE}); use it as it is")
    if not (folder / "modules.json").exists():
        if not (folder / "config.json").exists():
            raise WrongUse(f"{folder} holds no model: it has neither modules.json nor config.json")
        return Layout(transformer=folder)
    kinds: list[tuple[str, Path]] = []
    for module in _json(folder / "modules.json", list):
        kind = str(module.get("type", "")).rsplit(".", 1)[-1]
        if kind != "Dropout":  # off when encoding
            kinds.append((kind, folder / str(module.get("path", ""))))
    names = [kind for kind, _ in kinds]
    if names in (["Transformer", "SpladePooling"], ["MLMTransformer", "SpladePooling"]):
        return _sparse(folder, transformer=kinds[0][1], pooling=kinds[1][1])
    parts = dict(kinds)
    if names not in (
        ["Transformer", "Pooling", *tail] for tail in ([], ["Dense"], ["Normalize"], ["Dense", "Normalize"])
    ):
        raise WrongUse(
            f"{folder} chains the modules {', '.join(names)}; a tower is Transformer, Pooling, then at most "
            "one Dense and one Normalize, in this order, or Transformer (MLMTransformer) and SpladePooling"
        )
    settings = _json(folder / "config_sentence_transformers.json", dict)
    sentences = _json(parts["Transformer"] / "sentence_bert_config.json", dict)
    return Layout(
        transformer=parts["Transformer"],
        kind="dense",
        dense=parts.get("Dense"),
        pooling=_pooling(parts["Pooling"]),
        normalise="Normalize" in parts,
        similarity=_similarity(folder, settings),
        max_tokens=sentences.get("max_seq_length"),
        lower_case=bool(sentences.get("do_lower_case", False)),
        prefixes=_prefixes(settings),
    )


def _sparse(folder: Path, *, transformer: Path, pooling: Path) -> Layout:
    """A SPLADE model: log1p(relu(logits)) by the maximum or the sum over the tokens."""
    facts = _json(pooling / "config.json", dict)
    strategy, activation = facts.get("pooling_strategy", "max"), facts.get("activation_function", "relu")
    if strategy not in ("max", "sum") or activation != "relu":
        raise WrongUse(
            f"{pooling} pools by {strategy!r} after {activation!r}; a sparse tower pools by max or sum after 'relu'"
        )
    settings = _json(folder / "config_sentence_transformers.json", dict)
    sentences = _json(transformer / "sentence_bert_config.json", dict)
    task = sentences.get("transformer_task", "fill-mask")
    if task != "fill-mask":
        raise WrongUse(f"{transformer} is loaded for {task!r}; a sparse tower takes logits, that is 'fill-mask'")
    return Layout(
        transformer=transformer,
        kind="sparse",
        pooling=strategy,
        normalise=False,
        similarity=_similarity(folder, settings),
        max_tokens=sentences.get("max_seq_length"),
        lower_case=bool(sentences.get("do_lower_case", False)),
        prefixes=_prefixes(settings),
    )


def _pooling(folder: Path) -> Pooling:
    """Both forms: one name, or (until 2026) one boolean a mode."""
    facts = _json(folder / "config.json", dict)
    named = facts.get("pooling_mode")
    if named is None:
        modes = [name for key, name in _LEGACY_POOLINGS.items() if facts.get(key)]
    else:
        modes = [named] if isinstance(named, str) else list(named)
    if len(modes) != 1 or modes[0] not in _POOLINGS:
        raise WrongUse(
            f"{folder} pools by {' and '.join(modes) or 'nothing'}; a tower pools by one of {', '.join(_POOLINGS)}"
        )
    if not facts.get("include_prompt", True):
        raise WrongUse(f"{folder} leaves the prompt's tokens out of the pooling, which no tower does")
    return _POOLINGS[modes[0]]


def _similarity(folder: Path, settings: Mapping[str, Any]) -> Literal["cosine", "dot"] | None:
    match settings.get("similarity_fn_name"):
        case None:
            return None
        case "cosine":
            return "cosine"
        case "dot" | "dot_product":
            return "dot"
        case other:
            raise WrongUse(f"{folder} compares vectors by {other!r}; a tower compares by cosine or dot")


def _prefixes(settings: Mapping[str, Any]) -> dict[Role, str]:
    prompts = settings.get("prompts") or {}
    found: dict[Role, str] = {}
    for role, names in _PROMPTS.items():
        found[role] = next((prompts[name] for name in names if prompts.get(name)), "")
    return found


def _json(path: Path, kind: type[Any]) -> Any:
    """A JSON file, or an empty value when there is none."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        return kind()
    except ValueError as error:
        raise Stop(f"{path} is damaged: {error}") from error
    if not isinstance(value, kind):
        raise Stop(f"{path} is damaged: expected a JSON {kind.__name__}, got {type(value).__name__}")
    return value
