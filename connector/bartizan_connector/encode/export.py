"""Export: what the folder of an exported tower holds, and the checks that its files belong together; knows no engine.

`model.onnx` takes `input_ids` and `attention_mask`, gives `vectors`, and carries the spec in its metadata; beside it
lie the spec, the tokenizer, the record of the parity gate (which knows the model by its hash), and the golden texts.
"""

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from bartizan_connector.base.errors import SpaceMismatch, Stop, WrongUse
from bartizan_connector.base.paths import AnyPath, as_path
from bartizan_connector.encode.encoder import Encoder
from bartizan_connector.encode.golden import GOLDEN_FILE, Golden, golden_of, require_golden
from bartizan_connector.space.spec import TowerSpec

MODEL_FILE = "model.onnx"
PARITY_FILE = "parity.json"
TOWER_FILE = "model.safetensors"
"""The weights of a tower that torch runs, by which one is told."""
SPEC_KEY = "bartizan.tower"
"""Where the spec stands in the model's metadata."""
INPUTS = ("input_ids", "attention_mask")
OUTPUT = "vectors"

MODEL_HASH = "model_sha256"
GOLDEN_HASH = "golden_sha256"
"""Keys of the parity record; exports of 0.1.0 have no golden texts and lack the second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """An export as it lies in its folder."""

    folder: Path
    spec: TowerSpec
    parity: Mapping[str, Any]
    """What the parity gate recorded."""

    @classmethod
    def read(cls, folder: AnyPath) -> Self:
        """The export in `folder`; the model itself is read by `model`."""
        folder = as_path(folder, "an export's folder")
        spec = TowerSpec.read(folder)
        path = folder / PARITY_FILE
        require_export(folder)
        if not (folder / MODEL_FILE).exists():
            raise _unfinished(folder, MODEL_FILE)
        try:
            parity = json.loads(path.read_bytes())
            if not isinstance(parity[MODEL_HASH], str):
                raise TypeError(f"expected a text as {MODEL_HASH}")
        except FileNotFoundError as error:
            raise _unfinished(folder, PARITY_FILE) from error
        except (ValueError, KeyError, TypeError) as error:
            raise Stop(f"{path} is damaged: {error!r}; export the tower again") from error
        return cls(folder=folder, spec=spec, parity=parity)

    def model(self) -> bytes:
        """The model file, if it is byte for byte the one that passed the gate: no engine ever loads another."""
        path = self.folder / MODEL_FILE
        model = path.read_bytes()
        if hashlib.sha256(model).hexdigest() != self.parity[MODEL_HASH]:
            raise Stop(
                f"{path} is damaged or was replaced: it is not the file that passed the parity gate ({PARITY_FILE}); "
                "export the tower again"
            )
        return model

    def require_model(self, metadata: Mapping[str, str], inputs: Collection[str], outputs: Mapping[str, Any]) -> None:
        """Refuse a model that was made of another tower, by its metadata, or that takes or gives other tensors than
        an export; `outputs` names the shape of each."""
        path, spec = self.folder / MODEL_FILE, self.spec
        inside = metadata.get(SPEC_KEY)
        if inside is None:
            raise Stop(
                f"{path} carries no spec: it was not exported by Bartizan; export the tower with `bartizan export`"
            )
        made_for = TowerSpec.from_json(inside, origin=f"the spec inside {path}")
        if made_for != spec:
            raise SpaceMismatch(
                f"{path} was exported from another tower than the spec beside it says",
                expected=spec.space_id if made_for.space_id != spec.space_id else spec.tower_id,
                came=made_for.space_id if made_for.space_id != spec.space_id else made_for.tower_id,
                way_out="Export the tower again; an export's files are never mixed.",
            )
        if set(inputs) != set(INPUTS) or outputs.get(OUTPUT, [None])[-1] != spec.dim:
            raise Stop(
                f"{path} takes {sorted(inputs)} and gives {dict(outputs)}; "
                f"expected {INPUTS} and {OUTPUT} [batch, {spec.dim}]"
            )

    def golden(self) -> tuple[Golden, ...]:
        """The golden texts of each role with their vectors; none in an export of 0.1.0."""
        expected = self.parity.get(GOLDEN_HASH)
        if expected is None:
            return ()
        path = self.folder / GOLDEN_FILE
        try:
            content = path.read_bytes()
        except FileNotFoundError as error:
            raise _unfinished(self.folder, GOLDEN_FILE) from error
        if hashlib.sha256(content).hexdigest() != expected:
            raise Stop(f"{path} is damaged or of another export ({PARITY_FILE} knows another); export the tower again")
        return golden_of(content, origin=str(path))

    def require_golden(self, encoder: Encoder) -> None:
        """Refuse an engine that gives other vectors on this machine than the tower gave where it was exported."""
        require_golden(encoder, self.golden(), f"the export in {self.folder}")


def require_export(folder: Path) -> None:
    """Refuse a tower as it was trained; the way from one to the other is short."""
    if (folder / MODEL_FILE).exists() or not (folder / TOWER_FILE).exists():
        return
    refusal = WrongUse(
        f"{folder} is a tower as it was trained, not an export, and ONNX Runtime runs exports only: run "
        f"'bartizan export {folder} --out DIR' and name DIR instead, or run it in torch: engine = \"torch\" under "
        "[encoders.document] and [encoders.query]"
    )
    refusal.way_out = f'bartizan export {folder} --out DIR, or engine = "torch"'
    raise refusal


def _unfinished(folder: Path, name: str) -> Stop:
    return Stop(f"{folder} lacks {name}: it is not a finished export; export again")
