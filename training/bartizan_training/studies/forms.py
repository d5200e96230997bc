"""The numeric forms that a tower can be run in on a CPU, each opened as an encoder of the same space."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.encode.encoder import Encoder
from bartizan_connector.encode.export import MODEL_FILE
from bartizan_connector.encode.onnx import OnnxEncoder, session_options
from bartizan_connector.space.spec import TowerSpec
from bartizan_connector.space.tokens import Tokens
from bartizan_encoders.local import TorchEncoder
from bartizan_encoders.tower import Tower
from bartizan_encoders.weights import state_of

logging.getLogger(MatMulNBitsQuantizer.__module__).setLevel(logging.WARNING)  # it tells of every node that it skips

_BLOCK = 32
"""Weights that share one scale in the forms that quantise weights alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A tower in one form."""

    encoder: Encoder
    megabytes: float
    """Of the model on disk; for torch, of its weights."""


Opener = Callable[[Path, Path, int], Opened]
"""Given the tower's folder, a folder of its own to work in, and threads."""


def open_form(form: str, tower: Path, scratch: Path, *, threads: int) -> Opened:
    """The tower in that form."""
    return FORMS[form](tower, scratch / form, threads)


def _plain(tower: Path, scratch: Path, threads: int) -> Opened:
    return _exported(tower, scratch, threads, "fp32")


def _dynamic(tower: Path, scratch: Path, threads: int) -> Opened:
    return _exported(tower, scratch, threads, "int8")


def _exported(tower: Path, scratch: Path, threads: int, precision: str) -> Opened:
    _export(tower, scratch, precision)
    return Opened(encoder=OnnxEncoder.open(scratch, threads=threads), megabytes=_size(scratch / MODEL_FILE))


def _torch_bf16(tower: Path, scratch: Path, threads: int) -> Opened:
    loaded = Tower.load(tower, dtype=torch.bfloat16)
    held = sum(tensor.numel() * tensor.element_size() for tensor in state_of(loaded).values())
    return Opened(encoder=TorchEncoder(loaded, threads=threads), megabytes=held / 1e6)


def _weights_only(bits: int) -> Opener:
    def opened(tower: Path, scratch: Path, threads: int) -> Opened:
        _export(tower, scratch, "fp32")
        path = scratch / MODEL_FILE
        quantiser = MatMulNBitsQuantizer(
            onnx.load(path), bits=bits, block_size=_BLOCK, is_symmetric=True, accuracy_level=1
        )
        quantiser.process()
        model: Any = quantiser.model.model
        if not any(node.op_type == "MatMulNBits" for node in model.graph.node):
            raise WrongUse("its graph has no product with a constant matrix")
        onnx.save(model, path)
        spec = TowerSpec.read(scratch)
        session = onnxruntime.InferenceSession(path, session_options(), providers=["CPUExecutionProvider"])
        encoder = OnnxEncoder(session, Tokens.read(scratch, spec), spec, threads=threads)
        return Opened(encoder=encoder, megabytes=_size(path))

    return opened


def _export(tower: Path, scratch: Path, precision: str) -> None:
    """By the package that provides it, found by entry point."""
    for point in entry_points(group="bartizan.exporters", name="onnx"):
        point.load()(tower, scratch, precision=precision)
        return
    raise WrongUse("no exporter is installed")


def _size(path: Path) -> float:
    return path.stat().st_size / 1e6


FORMS: Mapping[str, Opener] = {
    "fp32": _plain,
    "bf16": _torch_bf16,
    "int8-weights": _weights_only(8),
    "int8": _dynamic,
    "int4-weights": _weights_only(4),
}
"""fp32, int8 (weights and activations, as `bartizan export` makes it) and the two that quantise weights alone run in
ONNX Runtime, bf16 in torch."""
REFERENCE = "fp32"
