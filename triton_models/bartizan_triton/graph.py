"""Tower → ONNX graph with pooling, head and normalisation inside."""

import tempfile
import warnings
from pathlib import Path

import onnx
import torch
from torch.onnx.errors import OnnxExporterError

from bartizan_connector.base.errors import Stop, WrongUse
from bartizan_connector.encode.export import INPUTS, OUTPUT
from bartizan_encoders.tower import Tower
from bartizan_triton.shapes import with_constant_shapes
from bartizan_triton.tracing import plainly

OPSET = 17
"""The newest that the TorchScript exporter writes as it is; every ONNX Runtime since 1.12 runs it."""
_LARGEST = 2**31 - 2**20
"""Bytes; a protobuf file, which an ONNX model is, cannot hold 2 GiB."""


def graph_of(tower: Tower) -> onnx.ModelProto:
    """The tower as one graph, batch and length free. Traced on two texts of unlike length, so that masking is in it."""
    size = sum(tensor.numel() * tensor.element_size() for tensor in tower.state_dict().values())
    if size > _LARGEST:
        raise WrongUse(
            f"tower '{tower.spec.name}' holds {size / 2**30:.1f} GiB, more than one ONNX file can. Documents need no "
            'export: the tower itself encodes them ([encoders.document] engine = "torch"; for eval --engine torch). '
            "For queries distil a smaller tower from it, and export that"
        )
    ids = torch.tensor([[1, 2, 3, 4, 5], [1, 2, 3, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    tower = tower.eval()
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings(), plainly(tower.backbone):
        # It warns of traced branches, which the parity gate judges, and of its own age (docs/decisions/006).
        warnings.simplefilter("ignore")
        path = Path(scratch) / "graph.onnx"
        try:
            torch.onnx.export(
                tower,
                (ids, mask),
                path,
                input_names=list(INPUTS),
                output_names=[OUTPUT],
                dynamic_axes={name: {0: "batch", 1: "length"} for name in INPUTS} | {OUTPUT: {0: "batch"}},
                opset_version=OPSET,
                dynamo=False,
            )
        except (OnnxExporterError, RuntimeError) as error:
            kind = tower.architecture["model_type"]
            raise Stop(f"torch cannot export a tower on a {kind} backbone to ONNX: {error}") from error
        return with_constant_shapes(onnx.load(path))
