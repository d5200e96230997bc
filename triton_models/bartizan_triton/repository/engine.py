"""The step that builds a TensorRT engine where it will run: it fits one GPU and one TensorRT, so none is shipped."""

from bartizan_connector.encode.export import INPUTS, MODEL_FILE
from bartizan_connector.space.spec import TowerSpec
from bartizan_triton.repository.config import PLAN_FILE, longest
from bartizan_triton.repository.serving import Serving

BUILD_FILE = "build-engine.sh"
_USUAL_BATCH, _USUAL_TOKENS = 8, 32


def build_script(spec: TowerSpec, serving: Serving) -> str:
    """A shell script for the server's own image: writes the plan aside and renames it in. fp32 unless asked otherwise:
    fp16 overflows in some BERT layers, which `bartizan deploy` then finds."""
    profiles = {
        "min": (1, 1),
        "opt": (min(_USUAL_BATCH, serving.max_batch), min(_USUAL_TOKENS, longest(spec))),
        "max": (serving.max_batch, longest(spec)),
    }
    shapes = " \\\n  ".join(
        f"--{bound}Shapes=" + ",".join(f"{tensor}:{batch}x{tokens}" for tensor in INPUTS)
        for bound, (batch, tokens) in profiles.items()
    )
    return f"""#!/usr/bin/env bash
# Builds the TensorRT engine of tower {spec.tower_id}, on the GPU and in the image that will serve it:
#   ./{BUILD_FILE} [--fp16]
# Afterwards `bartizan deploy` judges it through the server, as any other version.
set -euo pipefail
cd "$(dirname "$0")"
trtexec --onnx={MODEL_FILE} --saveEngine={PLAN_FILE}.new \\
  {shapes} \\
  --skipInference "$@"
mv {PLAN_FILE}.new {PLAN_FILE}
"""
