"""The Hugging Face backbone of a tower: built from its configuration, loaded, cut to fewer layers, identified."""

import inspect
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
    MODEL_FOR_TEXT_ENCODING_MAPPING,
    MODEL_MAPPING,
)
from transformers.utils import logging as transformers_logging

from bartizan_connector.base.errors import Stop, WrongUse
from bartizan_connector.space.canonical import digest_of

Architecture = Mapping[str, Any]
"""A backbone's configuration as its file (config.json) states it."""

CONFIG_FILE = "config.json"
_library_log: Any = transformers_logging
_HASH_DOMAIN = "bartizan.architecture/1"
_CHANGES_NO_VECTOR = re.compile(
    r"""^_ | drop | ^output_ | ^return_dict | ^initializer_ | label | ^summary_ | ^(
        architectures | auto_map | dtype | torch_dtype | torchscript | transformers_version | use_cache
        | gradient_checkpointing | finetuning_task | problem_type | task_specific_params | name_or_path
    )$""",
    re.VERBOSE,
)
"""Keys about training, provenance, heads that a tower does not use, and the form of the output."""


def architecture_hash(architecture: Architecture) -> str:
    """Identity of what the backbone computes with given weights; provenance, dropout and the like do not count."""
    facts = {key: value for key, value in architecture.items() if not _CHANGES_NO_VECTOR.search(key)}
    return digest_of(facts, domain=_HASH_DOMAIN)


def parse(text: str | bytes, *, origin: str) -> dict[str, Any]:
    """Read a config.json."""
    try:
        facts = json.loads(text)
    except ValueError as error:
        raise Stop(f"{origin} is damaged: {error}; import or train the tower again") from error
    if not isinstance(facts, dict) or "model_type" not in facts:
        raise Stop(f"{origin} is not the configuration of a Hugging Face model: it has no 'model_type'")
    return facts


def build(architecture: Architecture) -> PreTrainedModel:
    """A backbone with fresh random weights."""
    config = configuration(architecture)
    model_class, options = _model_class(config)
    with quiet_transformers():
        return kept_as(model_class(config, **options), torch.float32)


def load(
    architecture: Architecture, state: Mapping[str, Tensor], *, origin: str, dtype: torch.dtype = torch.float32
) -> PreTrainedModel:
    """A backbone with these weights, which must be exactly its own, kept as `dtype`."""
    config = configuration(architecture)
    model_class, options = _model_class(config)
    with quiet_transformers():
        try:
            loaded: Any = model_class.from_pretrained(
                None, config=config, state_dict=dict(state), output_loading_info=True, dtype=dtype, **options
            )
        except (RuntimeError, ValueError) as error:
            raise Stop(f"{origin} does not fit its {CONFIG_FILE}: {error}") from error
    backbone, report = loaded
    wrong = {kind: sorted(map(str, names)) for kind, names in report.items() if names}
    if wrong:
        raise Stop(f"{origin} does not fit its {CONFIG_FILE}: {wrong}; import or train the tower again")
    return kept_as(backbone, dtype)


def pretrained(folder: Path, architecture: Architecture, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """The backbone of a published model, loaded as its users load it; weights of other heads are left out."""
    model_class, options = _model_class(configuration(architecture))
    return from_folder(folder, architecture, model_class, options, dtype)


def from_folder(
    folder: Path, architecture: Architecture, model_class: Any, options: Mapping[str, Any], dtype: torch.dtype
) -> PreTrainedModel:
    """A published model as one of the library's classes; one whose files lack some of its weights is refused."""
    if architecture.get("quantization_config"):
        raise WrongUse(f"{folder} is quantised already; import the full model, and quantise when you export it")
    config = configuration(architecture)
    with quiet_transformers():
        try:
            loaded: Any = model_class.from_pretrained(
                folder, config=config, output_loading_info=True, dtype=dtype, **options
            )
        except (OSError, RuntimeError, ValueError, SafetensorError) as error:
            raise Stop(f"{folder} holds no weights that transformers can load: {error}") from error
    model, report = loaded
    lacking = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
    if lacking:
        raise Stop(f"{folder} lacks weights of a {config.model_type} model, which would be random: {lacking[:5]}")
    return kept_as(model, dtype)


def cut(
    architecture: Architecture, state: Mapping[str, Tensor], layers: Sequence[int]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The configuration and weights of a backbone that keeps only these layers, in this order."""
    config = configuration(architecture)
    depth = config.num_hidden_layers
    kept = list(layers)
    if not kept or kept != sorted(set(kept)) or kept[0] < 0 or kept[-1] >= depth:
        raise WrongUse(f"cannot keep the layers {kept}: expected rising numbers from 0 to {depth - 1}")
    shorter = dict(architecture)
    shorter[config.attribute_map.get("num_hidden_layers", "num_hidden_layers")] = len(kept)
    for key, value in config.to_dict().items():
        if isinstance(value, list) and len(value) == depth and key.startswith("layer"):
            shorter[key] = [value[layer] for layer in kept]
    stack = re.escape(_stack_of_layers(architecture, depth))
    place = {old: new for new, old in enumerate(kept)}
    cut_state: dict[str, Tensor] = {}
    for name, tensor in state.items():
        match = re.match(rf"{stack}\.(\d+)\.", name)
        if match is None:
            cut_state[name] = tensor
        elif int(match[1]) in place:
            cut_state[f"{name[: match.start(1)]}{place[int(match[1])]}{name[match.end(1) :]}"] = tensor
    return shorter, cut_state


def configuration(architecture: Architecture) -> PreTrainedConfig:
    """The library's view of the configuration; code that a model brings along is never run."""
    facts = dict(architecture)
    model_type = facts.pop("model_type")
    try:
        with quiet_transformers():
            config = AutoConfig.for_model(model_type, **facts)
    except (ValueError, KeyError, TypeError) as error:
        raise WrongUse(f"the installed transformers cannot build a model of type {model_type!r}: {error}") from error
    config.use_cache = False
    return config


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No remarks and no bars of the library's own while one of its models is built or loaded."""
    verbosity, bars = _library_log.get_verbosity(), _library_log.is_progress_bar_enabled()
    _library_log.set_verbosity_error()
    _library_log.disable_progress_bar()
    try:
        yield
    finally:
        _library_log.set_verbosity(verbosity)
        if bars:
            _library_log.enable_progress_bar()


def _model_class(config: PreTrainedConfig) -> tuple[type[PreTrainedModel], dict[str, Any]]:
    """The bare text encoder or decoder of that type, without the pooler that a tower never uses. Of an encoder-decoder
    the encoder is taken; the type says that it is one, since a published encoder alone (GTR) says it is none."""
    both = config.is_encoder_decoder or type(config) in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING
    mapping = MODEL_FOR_TEXT_ENCODING_MAPPING if both else MODEL_MAPPING
    if type(config) not in mapping:
        raise WrongUse(f"a model of type {config.model_type!r} has no text encoder that can become a tower")
    model_class: Any = mapping[type(config)]
    takes = inspect.signature(model_class).parameters
    return model_class, {"add_pooling_layer": False} if "add_pooling_layer" in takes else {}


def kept_as(model: Any, dtype: torch.dtype) -> PreTrainedModel:
    """The model with its weights in `dtype`, dropout off. What it computes anew, as the angles of rotary positions,
    stays as fine as it is: the library's own `.to(dtype)` would coarsen it."""
    for tensor in model.state_dict(keep_vars=True).values():
        if tensor.is_floating_point() and tensor.dtype != dtype:
            tensor.data = tensor.data.to(dtype)
    ready: PreTrainedModel = model.eval()
    return ready


def _stack_of_layers(architecture: Architecture, depth: int) -> str:
    """The name of the list of layers."""
    with torch.device("meta"):
        backbone = build(architecture)
    stacks = [
        name for name, module in backbone.named_modules() if isinstance(module, nn.ModuleList) and len(module) == depth
    ]
    outermost: list[str] = sorted(stacks, key=lambda name: str(name).count("."))
    if not outermost:
        raise WrongUse(f"cannot find the layers of a model of type {architecture['model_type']!r}; it cannot be cut")
    return outermost[0]
