"""The head of a language model as a tower's head: logits over the vocabulary out of hidden states, tied or not."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING

from bartizan_connector.base.errors import Stop, WrongUse
from bartizan_encoders import backbone as backbones
from bartizan_encoders.backbone import CONFIG_FILE, Architecture
from bartizan_encoders.pooling import Pooling
from bartizan_encoders.sparse_head import chunked, logits, plain

_jit: Any = torch.jit
_AGREES = {torch.float32: 1e-4, torch.bfloat16: 0.1, torch.float16: 0.02}
"""How near the library's own logits must come, as a share of the greatest one."""


class LanguageModelHead(nn.Module):
    """`transform` (BERT's family has one) in fp32, then one row of `weight` a term; a tied weight is the backbone's."""

    def __init__(
        self, transform: nn.Module | None, weight: nn.Parameter, bias: nn.Parameter | None, config: PreTrainedConfig
    ) -> None:
        super().__init__()
        self.transform = transform
        self.weight = weight
        self.bias = bias
        self._factor = _factor(config)
        self._cap: float | None = getattr(config, "final_logit_softcapping", None)

    @property
    def out_features(self) -> int:
        """Terms of the vocabulary."""
        return self.weight.shape[0]

    def forward(self, hidden: Tensor) -> Tensor:
        """All logits [..., V], as the language model gives them."""
        return self._risen(logits(self._transformed(hidden), self.weight, self.bias))

    def pooled(self, hidden_BLD: Tensor, mask_BL: Tensor, pooling: Pooling) -> Tensor:
        """Weights of the terms [B, V] of each text: log1p(relu(logits)), pooled over its tokens."""
        traced = _jit.is_tracing() or torch.onnx.is_in_onnx_export() or torch.compiler.is_compiling()
        run = plain if traced else chunked
        return run(self._transformed(hidden_BLD), mask_BL, (self.weight, self.bias), pooling, self._risen)

    def greatest(self, hidden_BLD: Tensor, mask_BL: Tensor) -> Tensor:
        """The greatest logit [B, V] of each term over a text's tokens, or 0, before what a model does to its logits."""
        head = (self.weight, self.bias)
        return torch.expm1(chunked(self._transformed(hidden_BLD), mask_BL, head, "max", lambda values: values))

    def _transformed(self, hidden: Tensor) -> Tensor:
        if self.transform is None:
            return hidden
        transformed: Tensor = self.transform(inputs_embeds=hidden).logits
        return transformed

    def _risen(self, values: Tensor) -> Tensor:
        """What the library does to logits after the last product."""
        if self._factor != 1.0:
            values = values * self._factor
        return values if self._cap is None else torch.tanh(values / self._cap) * self._cap


def build(architecture: Architecture) -> tuple[PreTrainedModel, LanguageModelHead]:
    """A backbone and a head with fresh random weights, tied as the configuration says."""
    config = backbones.configuration(architecture)
    with backbones.quiet_transformers():
        model = _model_class(config)(config).float().eval()
    return _apart(model, config)


def load(state: Mapping[str, Tensor], backbone: PreTrainedModel, *, origin: str) -> LanguageModelHead:
    """The head with these weights; one that brings no weight of its own is tied to the backbone's embeddings."""
    config: Any = backbone.config
    with backbones.quiet_transformers(), torch.device("meta"):
        model = _model_class(config)(config).eval()
    transform = _shell(model, model.get_output_embeddings())
    own = dict(state)
    weight = own.pop("weight", None)
    bias = own.pop("bias", None)
    if transform is not None:
        inner = {name.removeprefix("transform."): tensor.float() for name, tensor in own.items()}
        try:
            transform.load_state_dict(inner, assign=True)
        except RuntimeError as error:
            raise Stop(f"{origin} does not fit its {CONFIG_FILE}: {error}") from error
        transform.requires_grad_(True)
    elif own:
        raise Stop(f"{origin} does not fit its {CONFIG_FILE}: the head of a {config.model_type} has no {sorted(own)}")
    embeddings = _embeddings(backbone)
    parameter = embeddings if weight is None else nn.Parameter(weight.to(embeddings.dtype))
    return LanguageModelHead(transform, parameter, None if bias is None else nn.Parameter(bias.float()), config)


def pretrained(
    folder: Path, architecture: Architecture, dtype: torch.dtype
) -> tuple[PreTrainedModel, LanguageModelHead]:
    """The backbone and the head of a published language model."""
    config = backbones.configuration(architecture)
    return _apart(backbones.from_folder(folder, architecture, _model_class(config), {}, dtype), config)


def is_causal(config: PreTrainedConfig) -> bool:
    """Whether models of that type predict the next token, rather than masked ones."""
    decoder = type(config) in MODEL_FOR_CAUSAL_LM_MAPPING and type(config) not in MODEL_FOR_MASKED_LM_MAPPING
    return decoder and not config.is_encoder_decoder


def _model_class(config: PreTrainedConfig) -> Any:
    """The masked language model of that type, or else the causal one."""
    for mapping in (MODEL_FOR_MASKED_LM_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING):
        if type(config) in mapping and not config.is_encoder_decoder:
            return mapping[type(config)]
    raise WrongUse(
        f"a model of type {config.model_type!r} has no language-model head that a sparse tower could use; "
        "take a masked or a causal language model"
    )


def _apart(model: Any, config: PreTrainedConfig) -> tuple[PreTrainedModel, LanguageModelHead]:
    """A language model's backbone and head; a head that computes something that towers do not know is refused."""
    backbone: PreTrainedModel = model.base_model
    decoder = model.get_output_embeddings()
    dtype = decoder.weight.dtype
    probe = torch.randn(1, 3, config.hidden_size, generator=torch.Generator().manual_seed(0)).to(decoder.weight.device)
    setattr(model, model.base_model_prefix, _Given())
    with torch.no_grad():
        expected = model(inputs_embeds=probe.to(dtype)).logits.float()
    tied = decoder.weight is _embeddings(backbone)
    transform = _shell(model, decoder)
    weight = _embeddings(backbone) if tied else decoder.weight
    bias = None if decoder.bias is None else nn.Parameter(decoder.bias.detach().float())
    head = LanguageModelHead(None if transform is None else transform.float(), weight, bias, config).eval()
    with torch.no_grad():
        apart = (head(probe) - expected).abs().max()
    if not apart <= _AGREES[dtype] * expected.abs().max().clamp_min(1e-3):
        raise WrongUse(f"the head of a {config.model_type} computes more than towers know; it cannot become a tower's")
    return backbone, head


def _shell(model: Any, decoder: Any) -> nn.Module | None:
    """The language model without its backbone and its last product; None when nothing is left that computes."""
    setattr(model, model.base_model_prefix, _Given())
    for module in list(model.modules()):
        for key, child in list(module.named_children()):
            if child is decoder:
                setattr(module, key, nn.Identity())
        if module is not decoder and decoder.bias is not None:
            for key, parameter in list(module.named_parameters(recurse=False)):
                if parameter is decoder.bias:
                    setattr(module, key, None)
    shell: nn.Module = model
    return shell if any(True for _ in shell.parameters()) else None


class _Given(nn.Module):
    """Stands where the backbone stood, and gives back the hidden states that it is given."""

    def forward(self, *_: Any, inputs_embeds: Tensor, **__: Any) -> BaseModelOutputWithPastAndCrossAttentions:
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=inputs_embeds)

    @property
    def decoder(self) -> "_Given":
        """OPT's language model calls its backbone's decoder."""
        return self


def _embeddings(backbone: PreTrainedModel) -> nn.Parameter:
    module: Any = backbone.get_input_embeddings()
    weight: nn.Parameter = module.weight
    return weight


def _factor(config: PreTrainedConfig) -> float:
    """What the library multiplies logits with: Cohere's family and Granite's."""
    factor = float(getattr(config, "logit_scale", None) or 1.0) / float(getattr(config, "logits_scaling", None) or 1.0)
    if factor <= 0:
        raise WrongUse(f"a {config.model_type} turns its logits round (factor {factor}), which no sparse tower can")
    return factor
