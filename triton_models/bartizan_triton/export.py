"""Export: a tower becomes a folder that is served without torch, after it has passed the parity gate."""

import json

import onnx
import onnxruntime
import torch

from bartizan_connector.base.aside import folder_aside, refuse_foreign
from bartizan_connector.base.errors import WrongUse
from bartizan_connector.base.paths import AnyPath, as_path
from bartizan_connector.base.progress import progress
from bartizan_connector.encode.export import MODEL_FILE, PARITY_FILE, SPEC_KEY
from bartizan_connector.encode.golden import GOLDEN_FILE, golden_json, require_golden
from bartizan_connector.encode.onnx import OnnxEncoder, session_options
from bartizan_connector.space.replacing import refuse_another
from bartizan_connector.space.spec import Precision, TowerSpec
from bartizan_encoders.tower import Tower
from bartizan_triton.golden import golden_texts
from bartizan_triton.graph import graph_of
from bartizan_triton.parity import LIMITS, batches_of, compare, golden_vectors, report, require
from bartizan_triton.quantise import quantised

_LONGEST_EXAMPLE = 64
"""Tokens; longer texts bring about no larger activations."""


def export_tower(
    tower_folder: AnyPath, out: AnyPath, precision: Precision = "fp32", *, replace: bool = False
) -> TowerSpec:
    """Write the export of the tower in `tower_folder` to `out`: 1 trace, 2 quantise, 3 stamp with the spec, 4 compare
    with torch, 5 add the golden texts that every opening compares, 6 rename into place. Whatever fails leaves `out`
    as it was. The export of another tower, or in another precision, stays unless `replace` says otherwise."""
    tower_folder, out = as_path(tower_folder, "a tower's folder"), as_path(out, "the folder to write")
    if precision not in LIMITS["dense"]:
        raise WrongUse(f"precision {precision!r} is not one of {', '.join(LIMITS['dense'])}")
    refuse_foreign(out, marker=MODEL_FILE)
    tower = Tower.load(tower_folder, dtype=torch.float32)
    spec = tower.spec.at_precision(precision)
    if not replace:
        refuse_another(out, spec, export=True)
    model = graph_of(tower)
    if precision == "int8":
        role = next(iter(spec.roles))
        model = quantised(model, tower.tokens.encode(golden_texts(_LONGEST_EXAMPLE), role))
    _stamp(model, spec)
    with folder_aside(out, marker=MODEL_FILE) as fresh:
        path = fresh / MODEL_FILE
        onnx.save(model, path)
        session = onnxruntime.InferenceSession(path, session_options(), providers=["CPUExecutionProvider"])
        encoder = OnnxEncoder(session, tower.tokens, spec)
        try:
            with progress("comparing with torch, batches", batches_of(spec)) as tick:
                parity = compare(tower, encoder, tick)
            require(parity, spec)
            golden = golden_vectors(tower)
            require_golden(encoder, golden, "the export")
        finally:
            encoder.close()
        (fresh / GOLDEN_FILE).write_text(golden_json(golden), "utf-8")
        (fresh / PARITY_FILE).write_text(json.dumps(report(parity, spec, fresh), indent=2) + "\n", "utf-8")
        tower.tokens.write(fresh)
        spec.write(fresh)
    return spec


def _stamp(model: onnx.ModelProto, spec: TowerSpec) -> None:
    """The spec travels inside the model file too, and the output says its size."""
    del model.metadata_props[:]
    model.metadata_props.add(key=SPEC_KEY, value=spec.to_json())
    model.producer_name = "bartizan"
    batch, width = model.graph.output[0].type.tensor_type.shape.dim
    batch.dim_param = "batch"
    width.dim_value = spec.dim
    model.graph.name = "tower"
